"""Where the process of worker.py begins: run as toolkit.validation.worker, its package would have imported it already, and Python warns."""

import sys

from toolkit.validation.worker import main

sys.exit(main())
