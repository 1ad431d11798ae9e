"""Inside the fork of a command: `python -m module …` that it starts are forks too, of itself, so that they need no imports.

Only for speed. What differs from a program of its own: it has the memory and the imports of its parent. Every finding is run once
more without this (see worker.py).
"""

import atexit
import concurrent.futures.thread
import inspect
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from typing import Any

_execute: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_signature = inspect.signature(_execute)


def install() -> None:
    subprocess.Popen._execute_child = _fork  # type: ignore[attr-defined]


def _module_of(arguments: Any) -> list[str] | None:
    """[module, argument…] of `python -P -m module argument…`, else None."""
    words = [os.fspath(word) for word in arguments] if isinstance(arguments, (list, tuple)) else []
    if words[:1] != [sys.executable] or words[1:3] != ["-P", "-m"] or not words[3].startswith("toolkit"):
        return None
    return words[3:]


def _fork(self: Any, args: Any, *rest: Any) -> None:
    module = _module_of(args)
    if module is None:
        _execute(self, args, *rest)
        return
    given = _signature.bind(self, args, *rest).arguments
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the fork would say it again
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            _become(module, given)
            code = _run(module)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    self.pid, self._child_created = pid, True
    self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))


def _become(module: list[str], given: dict[str, Any]) -> None:
    """What `subprocess` does between fork and exec, and a new interpreter's own state."""
    streams = enumerate(given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
    held = [os.dup(number if stream == -1 else stream) for number, stream in streams]
    for number, stream in enumerate(held):
        os.dup2(stream, number)
    low = 3
    for number in [*sorted(given["pass_fds"]), 4096]:
        os.closerange(low, number)
        low = number + 1
    if given["start_new_session"]:
        os.setsid()
    if given["cwd"] is not None:
        os.chdir(given["cwd"])
    if given["env"] is not None:
        os.environ.clear()
        os.environ.update({os.fsdecode(key): os.fsdecode(value) for key, value in given["env"].items()})
    if given["preexec_fn"] is not None:
        given["preexec_fn"]()
    atexit._clear()  # those are of the parent, whose temporary folders they would remove
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    concurrent.futures.thread._threads_queues.clear()  # at its end it would wait for the parent's threads, of which it is one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = list(module)
    tempfile.tempdir = None  # that of the parent; a new interpreter looks at TMPDIR
    for name in [each for each in sys.modules if each in (module[0], f"{module[0]}.__main__")]:
        if not hasattr(sys.modules[name], "__path__"):
            del sys.modules[name]  # it runs anew, as a program


def _run(module: list[str]) -> int:
    """The module as a program, and what the interpreter does at its end; the exit code."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    code: Any = 0
    try:
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or 120
    return int(code or 0)
