"""End a command, and all that it started, when the system asks for it; and name a signal in words."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


def signal_name(number: int) -> str:
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")  # real-time signals have no name


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM (of a scheduler or a launcher) and SIGHUP (of a terminal) into a KeyboardInterrupt, as Ctrl-C is one.

    Only the first signal does so: launcher and scheduler both send one, and a second would cut off what is being put in order. A
    signal that was ignored stays ignored (nohup).
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        yield
        return

    def stop(*_: Any) -> None:
        handle(signal.SIG_IGN)
        after.clear()  # the process is about to end
        raise KeyboardInterrupt

    def handle(handler: Any) -> None:
        for number in after:
            signal.signal(number, handler)

    after = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    after = {number: handler for number, handler in after.items() if handler is not signal.SIG_IGN}
    handle(stop)
    try:
        yield
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)
