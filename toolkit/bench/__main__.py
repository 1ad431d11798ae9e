"""Where the process of worker.py begins: run as toolkit.bench.worker, its package would have imported it already, and Python warns."""

import sys

from toolkit.bench.worker import main

sys.exit(main())
