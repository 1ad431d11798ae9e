"""How a command ends: one message for whatever went wrong, and an exit code that says of which kind it was (errors.py)."""

import contextlib
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import typer

from toolkit import __version__, errors
from toolkit.printable import indented, line, printable
from toolkit.progress import showing

_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")  # newer typers bring their own click
_ROOM, _WRITABLE = "Make room there, or name another place", "Name a place where this user may read and write"
ADVICE = {  # what the system refuses, and what to do about it
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or name a place on another file system",
    errno.EACCES: _WRITABLE, errno.EPERM: _WRITABLE, errno.EROFS: _WRITABLE,
    errno.ELOOP: "Remove the links that lead round in a circle",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EIO: "The disk, or the way to it, failed: look into the system's log",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)", errno.ENFILE: "Close other programs",
    errno.ENOMEM: "End other programs, or raise the limit on memory",
    errno.EAGAIN: "End other programs, or raise the limit on processes (ulimit -u)",
}  # fmt: skip
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", os.strerror(errno.ENOMEM))  # as libraries say it


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code; what ended it early has been said on standard error."""
    try:
        _open_streams()
        _refuse_unreadable(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            with _unraisable_in_a_line():
                code = _command(arguments)
        with showing():
            pass  # whatever has been printed
    except errors.ToolkitError as error:
        if not _left_to_the_launcher(error):
            _say(indented(f"toolkit: {error}"))
        code = errors.BAD_INPUT
    except KeyboardInterrupt:
        code = errors.INTERRUPTED
    except BrokenPipeError:
        code = errors.BROKEN_PIPE
    except Exception as error:
        code = _failed(error)
    _leave_nothing_to_flush()
    return code


def _command(arguments: Sequence[str]) -> int:
    """What typer's own `main` does, which would end with 1 for a broken pipe."""
    from toolkit.cli.app import app

    try:
        with typer.main.get_command(app).make_context("toolkit", list(arguments)) as context:
            context.command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except _USAGE as error:
        shown = io.StringIO()
        error.show(shown)
        text = shown.getvalue().rstrip("\n")
        _say(line(text) if any("\n" in each for each in arguments) else printable(text, newlines=True))
        return errors.BAD_INPUT
    except typer.Abort:
        return errors.INTERRUPTED
    except SystemExit as ended:  # of the launcher of several processes
        return ended.code if isinstance(ended.code, int) else errors.BUG
    return errors.DONE


def _open_streams() -> None:
    """No file that is opened later may become standard output or error. Raises ToolkitError where standard output is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        raise errors.ToolkitError("standard output is closed, so the result could not be shown. Leave it open, or send it to a file")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without “–” or “Δ” is no reason to fail


@contextlib.contextmanager
def _unraisable_in_a_line() -> Iterator[None]:
    """A file that a library's finalizer could not remove is told in one line, without a traceback; the rest as before: it is a bug."""
    before = sys.unraisablehook

    def hook(about: "sys.UnraisableHookArgs") -> None:
        if isinstance(about.exc_value, OSError):
            _say(indented(f"a temporary file of a library could not be removed: {about.exc_value}"))
        else:
            before(about)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """A library's warning may quote a stranger's file."""
    _say(indented(warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n")))


def _refuse_unreadable(arguments: Sequence[str]) -> None:
    """Results, reports and JSON are UTF-8: a name that is not could not be told in them."""
    for each in arguments:
        try:
            each.encode()
        except UnicodeEncodeError as error:
            raise errors.ToolkitError(f"{os.fsencode(each)!r} is not UTF-8. Rename the file, and give its new name") from error
        if "\0" in each:
            raise errors.ToolkitError(f"{each!r} holds a zero byte, which no name can have. Leave it out")


def _failed(error: Exception) -> int:
    """Say why, and return the code: what the system refuses is no bug of ours."""
    if (reason := _refused(error)) is not None:
        _say(indented(f"toolkit: {reason}"))
        return errors.BAD_INPUT
    trace = "".join(traceback.format_exception(error)).rstrip("\n")
    _say(indented(f"toolkit: an error that it does not know:\n{trace}"))
    _say(f"toolkit: this is a bug of toolkit {__version__}. Please report it, with the lines above, to where you have the toolkit from")
    return errors.BUG


def _refused(error: Exception) -> str | None:
    """What the system refused, in words; None for any other exception."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return f"there is not enough memory ({line(error, 200) or 'no more is known'}). {ADVICE[errno.ENOMEM]}"
    if isinstance(error, OSError) and error.errno is not None:
        what = error.filename if error.filename2 is None else f"{error.filename} → {error.filename2}"
        about = f"{os.fsdecode(what)}: " if isinstance(what, str | bytes | os.PathLike) else ""
        return f"{about}{error.strerror or error}. {ADVICE.get(error.errno, 'Look at what is there, and run the command again')}"
    from toolkit.disks import reason

    if (found := reason(error)) is not None:  # a library's own error, or one without a number
        return f"{found}. {_ROOM}"
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"{os.fsencode(error.object[:200])!r} is not UTF-8. Rename that file or folder"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a file's name holds a zero byte, which no name can have. Look where it comes from"
    return None


def _leave_nothing_to_flush() -> None:
    """What could not be written would be tried once more at the end of Python, with a complaint and an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    """Print to standard error. Where even that cannot be written, only the exit code is left to speak."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _left_to_the_launcher(error: errors.ToolkitError) -> bool:
    """One of several processes that train together leaves the message to the one that started them."""
    if "RANK" not in os.environ:
        return False
    from toolkit import training

    return training.report(error)
