"""Progress on standard error: a bar on a terminal, a line now and then in a log. Standard output is for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_EVERY_S = 20.0


def say(text: str) -> None:
    """One line to standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields `update(done, **figures)`, with `done` of `total` units; speed and time left are worked out here."""
    show = _bar if sys.stderr.isatty() else _log
    with show(title, total, unit, done) as update:
        yield update


@contextmanager
def _bar(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    started, before = time.monotonic(), done
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, completed=done, figures="")

        def update(now: int, **figures: float) -> None:
            speed = (now - before) / max(time.monotonic() - started, 1e-9)
            bars.update(task, completed=now, figures=f"{_text(figures)} {speed:.0f} {unit}/s")

        yield update


@contextmanager
def _log(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    started, before, said = time.monotonic(), done, time.monotonic()

    def update(now: int, **figures: float) -> None:
        nonlocal said
        clock = time.monotonic()
        if clock - said < LOG_EVERY_S and now < total:
            return
        said = clock
        speed = (now - before) / max(clock - started, 1e-9)
        left = (total - now) / speed if speed else 0.0
        say(f"{title}: {now}/{total} {unit} {_text(figures)} {speed:.0f} {unit}/s, {left:.0f} s left")

    yield update


def _text(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
