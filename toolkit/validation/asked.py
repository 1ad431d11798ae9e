"""Where a worker's process begins. Nothing imports it: Python warns of a module that was imported before it is run."""

import sys

from toolkit.validation.worker import main

if __name__ == "__main__":
    sys.exit(main())
