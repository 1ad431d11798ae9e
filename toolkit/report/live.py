"""A measurement while it runs: on a terminal its table, made anew between rounds; in a log nothing of this.

Nothing is drawn while an arm is timed, and the time left stands on top, where a long table does not push it off the screen.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.printable import line
from toolkit.report.latency import latency_tables
from toolkit.report.terminal import rendered

if TYPE_CHECKING:
    from toolkit.bench.result import BenchResult


@contextmanager
def live() -> Iterator["Callable[[BenchResult, str], None] | None"]:
    """Yields what to call after every round with the result so far; None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True, markup=False, highlight=False), transient=True, auto_refresh=False) as screen:

        def show(result: "BenchResult", status: str) -> None:
            screen.update(Group(Text(line(status)), *(rendered(each) for each in latency_tables(result)[:1])), refresh=True)

        yield show
