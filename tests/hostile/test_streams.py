"""Kind 4, standard output: exit code 1 means that a check failed, whatever happens to the streams, the disk or the user's patience."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit import cli, errors

TOOLKIT = [sys.executable, "-P", "-m", "toolkit"]


def shell(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script in bash, in which $TOOLKIT is the command."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOOLKIT": " ".join(TOOLKIT), **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=100, check=False)


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("$TOOLKIT --help >/dev/full", errors.BAD_INPUT, "No space left on device"),
        ("$TOOLKIT --version >&-", errors.BAD_INPUT, "standard output is closed"),
        ("$TOOLKIT --version <&- 2>&-", errors.DONE, ""),
        ("$TOOLKIT inspect nothing 2>&-", errors.BAD_INPUT, ""),
        ("$TOOLKIT inspect nothing 2>/dev/full", errors.BAD_INPUT, ""),
        ("$TOOLKIT train --no-such-option 2>/dev/full", errors.BAD_INPUT, ""),
        ("$TOOLKIT --help | true; exit ${PIPESTATUS[0]}", errors.BROKEN_PIPE, ""),
        ("$TOOLKIT inspect nothing 2>&1 | true; exit ${PIPESTATUS[0]}", errors.BAD_INPUT, ""),
    ],
)
def test_a_stream_that_takes_nothing(script: str, code: int, says: str):
    done = shell(script)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("json", ["", "--json"])
@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("$TOOLKIT inspect $MODEL/exports/onnx-fp32 {json} >/dev/full", errors.BAD_INPUT, "cannot be written to standard output: No space"),
        ("$TOOLKIT inspect $MODEL/exports/onnx-fp32 {json} | true; exit ${{PIPESTATUS[0]}}", errors.BROKEN_PIPE, ""),
    ],
)
def test_a_result_that_does_not_get_through(released: Path, script: str, json: str, code: int, says: str):
    done = shell(script.format(json=json), MODEL=str(released))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def interrupted_after(seconds: float, *arguments: str) -> tuple[int, str]:
    process = subprocess.Popen(
        [*TOOLKIT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_ctrl_c_while_modules_are_imported(released: Path):
    """At any moment after Python itself has started, which is not ours."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-P", "-c", "pass"], check=True)
    first = 1.5 * (time.monotonic() - started)
    moments = random.Random(0)
    for _ in range(8):
        code, said = interrupted_after(first + moments.uniform(0, 1.5), "inspect", str(released))
        assert "Traceback" not in said, said
        assert "Exception ignored" not in said, said
        assert code in (errors.INTERRUPTED, -signal.SIGINT, errors.DONE), said  # the shell says 130 for the first two


def _raises(error: BaseException) -> Callable[[], None]:
    def examine() -> None:
        raise error

    return examine


REFUSED = (
    *(OSError(number, os.strerror(number), "exports/x") for number in (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
        errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOENT,
    )),
    OSError(errno.EXDEV, os.strerror(errno.EXDEV), "a", None, "b"),
    OSError(errno.ENOSPC, "No space left on device", b"\xff\x1b[2J"),
    ValueError("embedded null byte"),
    UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
    MemoryError(),
    RuntimeError("unable to mmap 26392 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
)  # fmt: skip


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_what_the_system_refuses_is_one_message(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("toolkit.doctor.examine", _raises(error))
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (errors.BAD_INPUT, "")
    assert said.err.count("\n") == 1
    assert said.err.startswith("toolkit: ")
    assert "\x1b" not in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), errors.BUG), (OSError("no number"), errors.BUG), (AssertionError(), errors.BUG), (RecursionError(), errors.BUG),
        (SystemExit("words"), errors.BUG), (BrokenPipeError(errno.EPIPE, "gone"), errors.BROKEN_PIPE),
        (KeyboardInterrupt(), errors.INTERRUPTED), (errors.ToolkitError("one\n\x1b[2JPASSED: all"), errors.BAD_INPUT),
        (ValueError("\r\x1b[2K\nPASSED: 9 checks"), errors.BUG),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)  # fmt: skip
def test_no_end_but_a_failed_check_has_code_1(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("toolkit.doctor.examine", _raises(error))
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (code, "")
    assert not {"\x1b", "\r"} & set(said.err)
    assert not any(each.startswith("PASSED") for each in said.err.splitlines())


def test_a_warning_of_a_library_cannot_write_a_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import warnings

    def examine() -> None:
        with warnings.catch_warnings(action="always"):
            warnings.warn("odd name \x1b[2J\nPASSED: 9 checks", stacklevel=1)
        raise errors.ToolkitError("done")

    monkeypatch.setattr("toolkit.doctor.examine", examine)
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    said = capsys.readouterr().err
    assert "odd name" in said
    assert "\x1b" not in said
    assert "\nPASSED" not in said


def test_a_finalizer_that_a_disk_stops_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def examine() -> None:
        weakref.finalize(set(), os.rmdir, os.curdir)  # its set is gone at once: the system refuses to remove "."
        raise errors.ToolkitError("done")

    monkeypatch.setattr("toolkit.doctor.examine", examine)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == errors.BAD_INPUT
    assert said[0].startswith("a temporary file of a library could not be removed: [Errno")
    assert said[1:] == ["toolkit: done"]
