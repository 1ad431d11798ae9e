"""Progress on standard error: a bar on a terminal, a line now and then in a log. Standard output is for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolkit.errors import ToolkitError
from toolkit.printable import line

LOG_EVERY_S, RELAY_EVERY_S = 20.0, 0.2
SAID, BEGUN, DONE, OVER = "said", "begun", "done", "over"

_QUIET = ContextVar("quiet", default=False)
_TELL: ContextVar[Callable[..., None] | None] = ContextVar("tell", default=None)


@contextmanager
def quietly() -> Iterator[None]:
    """No progress of what happens inside: for a command that runs another one many times, and has its own."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def relayed(tell: Callable[..., None]) -> Iterator[None]:
    """Hand on what happens inside instead of showing it: of a worker, whose standard error nobody reads meanwhile.

    `tell(kind, **fields)` is called with SAID and a text, with BEGUN, DONE and OVER of each `progress`.
    """
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


def say(text: str) -> None:
    """Print one line to standard error. Raises BrokenPipeError where nobody reads it any more."""
    if _QUIET.get():
        return
    if (tell := _TELL.get()) is not None:
        tell(SAID, text=text)
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
    show = _none if _QUIET.get() else _relay if _TELL.get() is not None else _bar if sys.stderr.isatty() else _log
    with show(title, total, unit, done) as update:
        yield update


@contextmanager
def _none(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    yield lambda now, **figures: None


@contextmanager
def _relay(title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    tell, said = _TELL.get(), 0.0
    assert tell is not None
    tell(BEGUN, title=title, total=total, unit=unit, done=done)

    def update(now: int, **figures: float) -> None:
        nonlocal said
        if (clock := time.monotonic()) - said >= RELAY_EVERY_S or now >= total:
            said = clock
            tell(DONE, done=now, figures=figures)

    try:
        yield update
    finally:
        tell(OVER)


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
