"""Kind 4, disks: full, limited, frozen, or full where temporary files go. Each is one message and exit code 2, and leaves nothing."""

import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile.attack import Attack, carry_out, digest
from toolkit.cli import main
from toolkit.errors import DiskError
from toolkit.limits import Limits
from toolkit.validation.run import answers_or_reason, interfaces
from toolkit.validation.worker import Job
from toolkit.workers import Message, call

TRAIN = "train {model} --device cpu --restart --set train.epochs=0.1"


def chattr(flag: str, folder: Path) -> bool:
    """Does it: makes a folder immutable (+i), or ordinary again (-i)."""
    return not subprocess.run(["chattr", flag, str(folder)], capture_output=True, check=False).returncode


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Nobody can write into it, the superuser included. Skips the test where a superuser cannot be kept out."""
    if os.geteuid():
        folder.chmod(0o555)
    elif shutil.which("chattr") is None or not chattr("+i", folder):
        pytest.skip("this file system has no immutable folders, and the superuser may write into all others")
    try:
        yield
    finally:
        folder.chmod(0o755) if os.geteuid() else chattr("-i", folder)


@contextmanager
def files_of_at_most(limit: int) -> Iterator[None]:
    """As `ulimit -f` has it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


COMPUTING = (  # (module, function of it) that each command below would come to
    ("export.export", "golden"), ("debug.repair", "golden"), ("validation.validating", "load"), ("report.report", "render"),
    ("bench.bench", "_rounds"), ("training.loop", "augment"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("exports", "export {model} --format onnx --format coreml"),
        ("exports", "export {model} --format coreml --keep-fp32 auto"),
        ("reports", "validate {model}"),
        ("reports", "report {model}"),
        ("reports", "bench {model} --quick --runtime torch-cpu"),
        (".", TRAIN),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_computed(
    model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: str, command: str
):
    for room, computing in COMPUTING:
        monkeypatch.setattr(importlib.import_module(f"toolkit.{room}"), computing, lambda *_, **__: pytest.fail("it had begun to compute"))
    with frozen(model / folder):
        carry_out(Attack("", lambda model: None, command, says="cannot write.*(not permitted|denied)", spares=True), model, capfd)


@pytest.mark.parametrize(("form", "limit"), [("onnx", 4 << 10), ("coreml", 4 << 10), ("coreml", 24 << 10)])  # bytes; its weights have 26 KB
def test_a_file_that_may_not_grow_is_one_message_and_leaves_nothing(
    model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, limit: int
):
    """`ulimit -f`, met by the converters themselves: what is asked before is switched off here."""
    monkeypatch.setattr(importlib.import_module("toolkit.export.export"), "require_room", lambda *_: None)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = digest(model, temporary)
    with files_of_at_most(limit), pytest.raises(SystemExit) as ended:
        main(["export", str(model), "--format", form])
    said = capfd.readouterr().err
    assert ended.value.code == 2, said
    assert "cannot write to" in said
    assert "Traceback" not in said
    assert list(temporary.iterdir()) == []
    assert digest(model, temporary) == before


PROGRAM = """
import sys
from toolkit.cli import main
if sys.argv[1] == "not asked before":
    import toolkit.export
    sys.modules["toolkit.export.export"].require_room = lambda *_: None
main(sys.argv[2:])
"""
DISK = """
export TMPDIR="$1"
mount -t tmpfs -o size=1m tmpfs "$1" && cp -r "$2" "$1/tiny" && cd "$1" && shift 2
dd if=/dev/zero of=ballast bs=4k 2>/dev/null  # until the disk is full
truncate -s -48k ballast
"$@"
code=$?
ls -RA
exit $code
"""


def on_full_disk(model: Path, asked: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command on a copy of the model that lies on a real file system of its own, with 48 KB free. Temporary files go there, too."""
    if (
        os.geteuid()
        or not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("only a superuser who may mount can have a file system of his own")
    mount = model.parents[1] / "disk"
    mount.mkdir()
    command = ["unshare", "-m", "sh", "-c", DISK, "sh", str(mount), str(model), sys.executable, "-c", PROGRAM, asked, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("form", "asked"), [("coreai", "asked before"), ("onnx", "not asked before"), ("coreml", "not asked before")])
def test_an_export_onto_a_full_disk_is_one_message_and_leaves_nothing(model: Path, form: str, asked: str):
    """Core AI's converter ends the whole process when a write fails: there it has to be found before."""
    if form == "coreai" and importlib.util.find_spec("coreai_torch") is None:
        pytest.skip("coreai-torch is not installed")
    shutil.rmtree(model / "exports")
    done = on_full_disk(model, asked, "export", "./tiny", "--format", form)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"cannot write to tiny/exports\S*: (.* MB are free there|.*No space left on device)", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert ".toolkit" not in done.stdout
    assert "tmp" not in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "validate ./tiny --runtime onnxruntime-cpu", "validate ./tiny --self-test --artifact onnx-fp32 --limit 20", "verify ./tiny",
        "predict ./tiny ./tiny/digit.png --runtime onnxruntime-cpu", "inspect ./tiny/exports/onnx-fp32", "debug onnx-fp32 --model ./tiny",
    ],
)  # fmt: skip
def test_temporary_files_without_room_are_one_message_and_no_failed_check(model: Path, words: str):
    """`verify` said FAILED: the worker that ran Core AI's file was killed by SIGBUS."""
    Image.new("L", (28, 28)).save(model / "digit.png")
    done = on_full_disk(model, "asked before", *words.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"cannot write to \S*disk: 0\.0 MB are free there, and about 1\.0 MB are needed.*TMPDIR", done.stderr), done.stderr


def test_a_worker_that_is_lost_on_a_full_disk_is_no_failed_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A disk can fill while a worker runs: libraries end the process then, or raise what says nothing."""
    monkeypatch.setattr("toolkit.workers.supervisor.temporary_full", lambda: DiskError("it is full"))
    with pytest.raises(DiskError, match="it is full"):
        call("no such task", Message({}))
    job = Job(str(tmp_path), "onnxruntime-cpu", golden=np.zeros((1, 1, 28, 28), np.float32), classes=10)
    monkeypatch.setattr("toolkit.validation.run.call", lambda *_, **__: call("no such task", Message({})))
    with pytest.raises(DiskError, match="it is full"):
        answers_or_reason(job, np.zeros((1, 1, 28, 28), np.uint8), Limits(), True, lambda done: None)
    with pytest.raises(DiskError, match="it is full"):
        interfaces([tmp_path], Limits(), True)
