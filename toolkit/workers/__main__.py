"""Where every worker begins: `python -m toolkit.workers TASK FD`."""

import contextlib
import os
import sys

from toolkit.workers.child import main

code = main(sys.argv[1:])
with contextlib.suppress(OSError):  # last words that a full disk does not take
    sys.stdout.flush()
    sys.stderr.flush()
# All is said. What libraries do while an interpreter ends can take the process down (Core AI's Swift runtime aborts in one of three
# on a busy machine), and would make a good result a lost one.
os._exit(code)
