"""Progress goes to standard error, as lines in a log and as a bar on a terminal."""

import sys

import pytest

from toolkit import progress as module
from toolkit.progress import progress, say


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """A clock that tests turn."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_a_line_is_said_to_standard_error_only(capfd):
    say("hello × world")
    assert capfd.readouterr() == ("", "hello × world\n")


def test_a_log_gets_a_line_every_twenty_seconds_and_one_at_the_end(capfd, clock):
    with progress("train", 1000) as update:
        for second in range(1, 51):
            clock.now += 1
            update(20 * second, loss=1 / second)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train: 400/1000 images loss 0.05 20 images/s, 30 s left",
        "train: 800/1000 images loss 0.025 20 images/s, 10 s left",
        "train: 1000/1000 images loss 0.02 20 images/s, 0 s left",
    ]


def test_what_was_done_before_does_not_count_for_the_speed(capfd, clock):
    with progress("go on", 100, unit="rounds", done=50) as update:
        clock.now += 30
        update(80)
    assert capfd.readouterr().err == "go on: 80/100 rounds  1 rounds/s, 20 s left\n"


def test_an_update_without_progress_divides_by_nothing(capfd, clock):
    with progress("stuck", 100) as update:
        clock.now += 30
        update(0)
    assert capfd.readouterr().err == "stuck: 0/100 images  0 images/s\n"


def test_a_terminal_gets_a_bar_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("train", 100) as update:
        update(100, accuracy=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "train" in err
    assert "100/100" in err
    assert "accuracy 0.5" in err


@pytest.mark.parametrize("terminal", [False, True])
def test_an_exception_goes_through(monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with pytest.raises(ZeroDivisionError), progress("train", 100) as update:
        update(1 // 0)


def test_quietly_says_nothing_and_only_inside(capsys):
    from toolkit.progress import quietly

    with quietly(), progress("inner", 2) as update:
        say("hidden")
        update(2)
    assert capsys.readouterr().err == ""
    say("shown")
    assert capsys.readouterr().err == "shown\n"
