"""A worker that dies, hangs, eats memory or talks nonsense is a sentence; nothing that it started is left; it ends with us."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.workers.scripted import SCRIPT, TASK
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.limits import Limits
from toolkit.workers import Message, WorkerLost, call, started, supervisor

NOTHING = Message({})


@pytest.fixture
def script(monkeypatch):
    return lambda text: monkeypatch.setenv(SCRIPT, text)


def lost(limits: Limits | None = None, **options) -> str:
    with pytest.raises(WorkerLost) as error:
        call(TASK, NOTHING, limits=limits, **options)
    return str(error.value)


@pytest.mark.parametrize(("text", "words"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by SIGKILL; it said nothing"),
    ("import os; os.kill(os.getpid(), 35)", "its process was killed by signal 35; it said nothing"),
    ("import os, sys; print('Neural Engine says no', file=sys.stderr, flush=True); os.abort()",
     "its process was killed by SIGABRT; last words: Neural Engine says no"),
    ("import os, sys; [print(f'line {n}', file=sys.stderr, flush=True) for n in range(9)]; os._exit(2)", "line 6; line 7; line 8"),
    ("import os; os._exit(3)", "its process ended with exit code 3 and no message"),
    ("import os, sys; sys.stderr.buffer.write(b'\\xff\\n'); sys.stderr.flush(); os._exit(1)", r"\xff"),
    ("import os, sys; sys.stderr.write('\\x1b[31mred\\x07'); sys.stderr.flush(); os._exit(1)", "�[31mred�"),
    ("import os; os._exit(0)", "its process ended well and gave no result; last words: none"),
    ("import os; print('bye', flush=True); os._exit(0)", "its process ended well and gave no result; last words: bye"),
])  # fmt: skip
def test_how_a_worker_ended_is_told_with_its_last_words(script, text, words):
    script(text)
    assert lost() == words


def test_an_exception_that_nobody_foresaw_is_told_by_its_last_line_and_kept_where_asked(script, monkeypatch, tmp_path):
    script("print('before')\nraise ZeroDivisionError('boom')")
    assert "ZeroDivisionError: boom. All of what it said: set TOOLKIT_WORKER_LOG=FILE" in lost()
    monkeypatch.setenv(supervisor.LOG, str(tmp_path / "log"))
    lost()
    said = (tmp_path / "log").read_text()
    assert "before" in said
    assert "Traceback" in said


@pytest.mark.parametrize(("text", "kind", "words"), [
    ("from toolkit.errors import ArtifactError; raise ArtifactError('no \\x1b[1mfile')", ArtifactError, "no �[1mfile"),
    ("open('n' * 300)", ToolkitError, "n" * 300 + ": File name too long"),
    ("raise MemoryError", ToolkitError, "there was no memory left for what was asked"),
    ("link.tell('error', type='SystemExit', message='now')", ToolkitError, "now"),  # a name that is no error of ours
    ("link.tell('error', type='signal_name', message=1)", ToolkitError, "1"),
])  # fmt: skip
def test_an_error_of_the_task_is_raised_here(script, text, kind, words):
    script(text)
    with pytest.raises(kind) as error:
        call(TASK, NOTHING)
    assert (type(error.value), str(error.value)) == (kind, words)


def test_a_result_comes_back_with_its_arrays_and_what_was_said_before(script):
    script("link.tell('step', number=1); result = Message({'sum': int(request.arrays['x'].sum())}, {'twice': request.arrays['x'] * 2})")
    said = []
    found = call(TASK, Message({}, {"x": np.arange(5)}), on_message=lambda kind, message: said.append((kind, dict(message.fields))))
    assert found.fields == {"sum": 10}
    assert found.arrays["twice"].tolist() == [0, 2, 4, 6, 8]
    assert said == [("step", {"number": 1})]


def test_a_result_counts_whatever_a_library_does_while_the_interpreter_ends(script):
    script("import atexit, os; atexit.register(os.abort); result = Message({'done': True})")
    assert call(TASK, NOTHING).fields == {"done": True}


def test_progress_there_is_shown_here(script, capsys):
    script(
        "from toolkit.progress import progress, say\nsay('looking \\x1b[2Jaround')\n"
        "with progress('files', 3) as update:\n    update(1)\n    update(3, loss=0.5)"
    )
    call(TASK, NOTHING)
    said = capsys.readouterr().err
    assert "files: 3/3 images loss 0.5" in said


@pytest.mark.parametrize("message", [
    "kind='begun', title=5, total='many', unit=None, done=-1", "kind='begun', title='t', total=10, unit='u', done=99",
    "kind='done', done='x', figures=[1]", "kind='done', done=2, figures={'a': 'b'}", "kind='over'", "kind='said'", "kind='else', a=1",
])  # fmt: skip
def test_progress_that_is_nonsense_harms_nobody(script, message):
    script(f"fields = dict({message})\nlink.tell(fields.pop('kind'), **fields)\nlink.tell('over')\nlink.tell('over')")
    assert call(TASK, NOTHING).fields == {}


@pytest.mark.parametrize(("text", "words"), [
    ("link._out.write(b'hello, world'); link._out.flush()", r"its answer cannot be read \(a frame does not begin with"),
    ("link._out.write(b'TKW1' + (2**31).to_bytes(4, 'little')); link._out.flush()", "a frame does not begin with"),
    ("link._out.write(b'TKW1' + (9).to_bytes(4, 'little') + b'[[[[[[[[['); link._out.flush()", "the head of a frame cannot be read"),
    ("import numpy as np; result = Message({}, {'x': np.zeros(2000)})", "a frame has 1 arrays of 16000 bytes"),
])  # fmt: skip
def test_an_answer_that_is_no_frame_or_too_large_is_not_used(script, text, words):
    import re

    script(text)
    assert re.search(words, lost(most_bytes=1000))


def test_a_worker_that_hangs_is_stopped_with_all_that_it_started(script, tmp_path):
    mark = tmp_path / "alive"
    script(
        "import subprocess, sys, time\n"
        f"touch = 'import time, pathlib\\nwhile True: time.sleep(0.05); pathlib.Path(\"{mark}\").touch()'\n"
        "subprocess.Popen([sys.executable, '-c', touch])\n"
        "print('waiting for the device', file=sys.stderr, flush=True)\ntime.sleep(600)"
    )
    began = time.monotonic()
    said = "did not end within 2.5 s and was stopped (TOOLKIT_TIME_LIMIT raises the limit); last words: waiting for the device"
    assert lost(Limits(seconds=2.5)) == said
    assert time.monotonic() - began < 60
    mark.unlink(missing_ok=True)
    time.sleep(0.3)
    assert not mark.exists()  # its child is gone as well


def test_a_worker_that_does_not_answer_in_time_is_stopped(script):
    script("import time; time.sleep(600)")
    with started(TASK, NOTHING) as worker, pytest.raises(WorkerLost, match=r"did not answer within 0\.5 s and was stopped"):
        worker.hear("ready", 0.5)


@pytest.mark.parametrize("child", [False, True])
def test_a_worker_that_eats_memory_is_stopped(script, child):
    eat = "x = bytearray(400 << 20); import time; time.sleep(600)"
    script(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {eat!r}])" if child else eat)
    said = lost(Limits(memory_bytes=300 << 20))
    assert said.startswith("used 0.")
    assert "GiB of memory, allowed 0.3, and was stopped" in said


def test_a_look_at_the_memory_that_fails_is_not_the_last_one(script, monkeypatch):
    looks = []
    memory_info = psutil.Process.memory_info

    def sometimes(self):
        looks.append(self.pid)
        if len(looks) % 2:
            raise OSError(errno.EIO, "Input/output error")
        return memory_info(self)

    monkeypatch.setattr(psutil.Process, "memory_info", sometimes)
    script("x = bytearray(400 << 20); import time; time.sleep(600)")
    assert "GiB of memory, allowed 0.3, and was stopped" in lost(Limits(memory_bytes=300 << 20))
    assert len(looks) > 1


def test_a_worker_that_says_too_much_is_stopped(script, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_SAID_BYTES", 1 << 20)
    script("import time\nfor _ in range(40): print('x' * (1 << 20), flush=True)\ntime.sleep(600)")
    assert "and was stopped" in lost()


def test_a_worker_that_never_stops_telling_is_stopped_in_time(script):
    script("while True: link.tell('noise', text='x' * 1000)")
    assert lost(Limits(seconds=2.0), on_message=lambda kind, message: None).startswith("did not end within 2 s")


def test_the_others_are_stopped_when_one_is(script):
    script("import time; time.sleep(600)")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    assert lost(stop=stop).startswith("was stopped with the others")


def test_ctrl_c_ends_the_worker_at_once(script, tmp_path):
    script(f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(600)")

    def interrupt() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call(TASK, NOTHING)
    finally:
        signal.signal(signal.SIGINT, before)
    (pid,) = (int(path.name) for path in tmp_path.iterdir())
    assert not psutil.pid_exists(pid)


PARENT = f"""
import sys
from toolkit.workers import Message, call
call({TASK!r}, Message({{}}))
"""
SPINS = {
    "that computes": "while True: pass",
    "that sleeps": "import time; time.sleep(600)",
    "that holds the interpreter": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",  # one call into C that never lets go of it
}


@pytest.mark.parametrize("spin", [
    pytest.param(text, id=name, marks=pytest.mark.skipif(
        name == "that holds the interpreter" and sys.platform != "linux", reason="only Linux ends a process with its parent")
    ) for name, text in SPINS.items()
])  # fmt: skip
def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path, spin):
    mark = tmp_path / "pid"
    environment = {
        **os.environ, SCRIPT: f"import os, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n{spin}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment)
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(mark.read_text())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_worker_has_a_folder_of_its_own_and_no_secret_of_ours(script, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TOOLKIT_DATA", "data")
    monkeypatch.chdir(tmp_path)
    script(
        "import os, resource, sys, tempfile\n"
        "result = Message({'cwd': os.getcwd(), 'tmp': tempfile.gettempdir(), 'names': sorted(os.environ),\n"
        "    'data': os.environ['TOOLKIT_DATA'], 'core': resource.getrlimit(resource.RLIMIT_CORE)[0], 'input': sys.stdin.read()})"
    )
    found = call(TASK, NOTHING).fields
    assert found["cwd"] == found["tmp"] != str(tmp_path)
    assert not Path(found["cwd"]).exists()
    assert "AWS_SECRET_ACCESS_KEY" not in found["names"]
    assert found["data"] == str(tmp_path / "data")
    assert (found["core"], found["input"]) == (0, "")


def test_a_file_in_the_users_folder_is_not_imported_in_place_of_the_library(script, monkeypatch, tmp_path):
    for name in ("random", "numpy", "toolkit"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file of the user')\n")
    monkeypatch.chdir(tmp_path)
    script("import random, numpy")
    assert call(TASK, NOTHING).fields == {}


def test_every_task_of_the_table_can_be_imported():
    from toolkit.workers.tasks import TASKS, find

    assert all(callable(find(name)) for name in TASKS)
