"""Where the process of alone.py begins. Nothing imports it: Python warns of a module that was imported before it is run."""

import sys

from toolkit.debug.alone import main

if __name__ == "__main__":
    sys.exit(main())
