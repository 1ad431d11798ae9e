"""While a measurement runs: a table on a terminal, nothing in a log."""

import io
import sys

from toolkit.report.live import live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_table_and_the_time_left_are_shown_after_every_round(bench, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with live() as show:
        show(bench(), "round 3 of 24, about 90 s left")
        first = screen.getvalue()
        show(bench(), "round 4 of 24, about 85 s left")
    assert "onnxruntime-cpu" in first
    assert "round 3 of 24, about 90 s left" in first
    assert "about 85 s left" in screen.getvalue()


def test_in_a_log_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with live() as show:
        assert show is None
