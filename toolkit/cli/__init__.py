"""The command line: `main` starts it, app.py lists the commands, ending.py decides the exit code.

This file imports next to nothing, so that Ctrl-C while the rest is imported ends without a traceback.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # as in errors.py


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end with its exit code (errors.py). `arguments`: those of this process by default."""
    try:
        before = _until_imported()
        from toolkit.cli.ending import run

        if before is not None:
            signal.signal(signal.SIGINT, before)
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # in the moment before `run` sees to it
        code = INTERRUPTED
    if arguments is None and before is not None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to put in order: Ctrl-C must not interrupt the end with a traceback
    sys.exit(code)


def _until_imported() -> "signal._HANDLER | None":
    """Let Ctrl-C end the process at once, and return the handler to restore; None where Ctrl-C is ignored or not ours (nohup, a library).

    An exception would not do: a library that is interrupted while it is imported turns it into an error of its own.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return None

    def stop(_number: int, _frame: FrameType | None) -> None:
        os._exit(INTERRUPTED)

    return signal.signal(signal.SIGINT, stop)
