"""Progress on standard error: a bar on a terminal, a line now and then in a log. Standard output is for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolkit.errors import ToolkitError
from toolkit.printable import line

LOG_EVERY_S = 20.0


_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """No progress of what happens inside: for a command that runs another one many times, and has its own."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def say(text: str) -> None:
    """Print one line to standard error. Raises BrokenPipeError where nobody reads it any more."""
    if _QUIET.get():
        return
    try:
        print(line(text), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # a log on a full disk is no reason to lose an hour of training, and there is no other place to say so
        pass


@contextmanager
def showing() -> Iterator[None]:
    """What is printed inside reaches standard output, or an error is raised at once rather than when Python ends.

    Raises ToolkitError where it cannot be written, BrokenPipeError where nobody reads it any more.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ToolkitError(f"the result cannot be written to standard output: {error.strerror}. Send it to another place") from error


@contextmanager
def progress(title: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Callable[..., None]]:
    """Yields `update(done, **figures)`, with `done` of `total` units; speed and time left are worked out here."""
    show = _none if _QUIET.get() else _bar if sys.stderr.isatty() else _log
    with show(title, total, unit, done) as update:
        yield update


@contextmanager
def _none(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    yield lambda now, **figures: None


@contextmanager
def _bar(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    words = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[figures]}"))
    columns = (next(words), BarColumn(bar_width=None), MofNCompleteColumn(), next(words))
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(line(title), total=total, completed=done, figures="")

        def update(now: int, **figures: float) -> None:
            bars.update(task, completed=now, figures=_text(figures, now, done, total, time.monotonic() - started, unit))

        yield update


@contextmanager
def _log(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    started = said = time.monotonic()

    def update(now: int, **figures: float) -> None:
        nonlocal said
        clock = time.monotonic()
        if clock - said < LOG_EVERY_S and now < total:
            return
        said = clock
        say(f"{title}: {now}/{total} {unit} {_text(figures, now, done, total, clock - started, unit)}")

    yield update


def _text(figures: dict[str, float], now: int, before: int, total: int, elapsed_s: float, unit: str) -> str:
    """Figures, speed and time left; the speed is that of this run, which may have begun at `before` units."""
    speed = (now - before) / max(elapsed_s, 1e-9)
    left = f", {(total - now) / speed:.0f} s left" if speed else ""
    named = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
    return f"{named} {speed:.0f} {unit}/s{left}" if speed >= 10 else f"{named} {speed:.2g} {unit}/s{left}"
