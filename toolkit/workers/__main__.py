"""Where every worker begins: `python -m toolkit.workers TASK FD`."""

import sys

from toolkit.workers.child import main

sys.exit(main(sys.argv[1:]))
