"""Ctrl-C, and what a scheduler sends: the run stops at a step's end, with everything saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from toolkit.progress import say


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields `stop()`, True from the first Ctrl-C, SIGTERM or SIGHUP on: the step in hand is ended and saved. Another Ctrl-C ends at once.

    One SIGTERM after another does not: a scheduler sends it to the launcher and to its processes, and the launcher hands it on. A SIGHUP
    that is ignored stays so (nohup).
    """
    asked: set[int] = set()

    def ask(signum: int, _frame: Any) -> None:
        if asked and signal.SIGINT in {signum, *asked}:
            raise KeyboardInterrupt
        if not asked:
            say("told to stop: finishing this step and saving (Ctrl-C once more to stop at once)")
        asked.add(signum)

    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        yield lambda: False
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else [])]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
