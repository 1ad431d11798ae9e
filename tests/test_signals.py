"""Commands end with the system that asks for it. How workers end: tests/workers/."""

import os
import signal

import pytest

from toolkit.signals import terminable


@pytest.fixture(autouse=True)
def _own_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_is_an_interrupt_once(number):
    """What is put in order at the first is not cut off by a second, nor after it."""
    put_in_order = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            put_in_order.append(True)

    with pytest.raises(KeyboardInterrupt), terminable():
        work()
    assert put_in_order
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("error", [None, ValueError])
def test_signals_mean_afterwards_what_they_meant(error):
    def inside():
        with terminable():
            assert callable(signal.getsignal(signal.SIGTERM))
            if error:
                raise error

    if error:
        with pytest.raises(error):
            inside()
    else:
        inside()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_what_is_ignored_stays_so():
    """nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with terminable():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
