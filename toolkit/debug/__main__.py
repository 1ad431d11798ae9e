"""Where the process of alone.py begins: run as toolkit.debug.alone, its package would have imported it already, and Python warns."""

import sys

from toolkit.debug.alone import main

sys.exit(main())
