"""What tells a run to stop; that it saves then: test_train.py, test_launcher.py."""

import os
import signal

import pytest

from toolkit.training.interrupt import interruptible

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _own_handlers():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_asks_to_stop_and_ends_nothing(number):
    with interruptible() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM if number != signal.SIGINT else signal.SIGCONT)  # launcher and scheduler both send it
    assert [signal.getsignal(each) for each in NUMBERS] == [signal.SIG_DFL] * 3


def test_ctrl_c_once_more_ends_at_once():
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_hang_up_that_is_ignored_stays_so():
    """nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()
