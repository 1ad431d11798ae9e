"""`toolkit train --nproc N`: starts the processes by torch's own launcher, and says once how they ended.

Each of them is `toolkit train` again, which finds itself `launched` (ranks.py). One that fails leaves its message by `report`.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BUG, CHECK_FAILED, INTERRUPTED, ToolkitError
from toolkit.ranks import LostRank
from toolkit.signals import signal_name

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

OURS = "TOOLKIT_LAUNCHED"  # set for processes that `launch` started, to its process id: it speaks for them
LOOK_EVERY_S = 1.0
SHUTDOWN_S = 300  # to finish a step and save
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for what a process has to say
MISSED = 3  # such a process's CHECK_FAILED: Python itself ends with 1 where it fails before the command line begins


def launch(count: int, arguments: Sequence[str]) -> None:
    """Runs `python -m toolkit ARGUMENTS` in `count` processes of this machine, and waits for them.

    Raises ToolkitError with what the first one that failed has to say, or how it died; KeyboardInterrupt where they were told to
    stop; SystemExit where a goal was missed, or one of them met a bug of ours.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))  # else each takes every core
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))  # then SIGKILL
    os.environ.update({OURS: str(os.getpid()), "PYTHONPATH": os.pathsep.join(sys.path)})  # with -P: they import what we import
    scratch = tempfile.TemporaryDirectory()
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id=str(os.getpid()),
        max_restarts=0, monitor_interval=0.2, local_addr="127.0.0.1", logs_specs=DefaultLogsSpecs(log_dir=scratch.name),
    )  # fmt: skip
    logging.disable(logging.ERROR)  # it tells the same in many lines
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "toolkit", *arguments)
    except SignalException as stopped:
        for path in Path(scratch.name).rglob("error.json"):  # the launcher does not look there when it was told to stop
            said = json.loads(path.read_text(encoding="utf-8"))["message"]
            if isinstance(said, dict) and not said.get("lost"):
                raise ToolkitError(said["message"]) from stopped
        raise KeyboardInterrupt from stopped
    except ChildFailedError as failed:
        rank, failure = min(failed.failures.items(), key=lambda each: _importance(each[1]))
        if failure.exitcode == INTERRUPTED:
            raise KeyboardInterrupt from failed
        if failure.exitcode == MISSED:
            raise SystemExit(CHECK_FAILED) from failed
        if failure.exitcode == BUG:  # it has said so itself, with its traceback
            raise SystemExit(BUG) from failed
        died = failure.exitcode < 0
        how = f"was killed by {signal_name(-failure.exitcode)}" if died else f"ended with exit code {failure.exitcode}"
        raise ToolkitError(_said(failure).get("message") or (
            f"rank {rank} of {count} {how}, and the others were stopped. The last checkpoint, if any, was kept: "
            "the same command with --resume goes on from it"
        )) from failed  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
        scratch.cleanup()
        os.environ.clear()
        os.environ.update(before)


def end_with_launcher() -> None:
    """In a process that `launch` started: stop as by SIGTERM once it is gone, with everything saved. Nobody else would stop it then."""
    if (launcher := os.environ.get(OURS, "")).isdecimal():
        threading.Thread(target=_watch, args=(int(launcher),), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_S)
    os._exit(INTERRUPTED)


def _importance(failure: "ProcessFailure") -> tuple[bool, bool, int]:
    """The smallest is the cause: not one that lost the others, nor one that was stopped because of them; then the earliest."""
    return bool(_said(failure).get("lost")), failure.exitcode == -signal.SIGTERM, failure.timestamp


def _said(failure: "ProcessFailure") -> dict[str, Any]:
    """What the process left by `report`; empty where it died of something else."""
    said = failure.error_file_data.get("message") if isinstance(failure.error_file_data, dict) else None
    return said if isinstance(said, dict) else {}


def goal_missed() -> int:
    """The exit code."""
    return MISSED if OURS in os.environ else CHECK_FAILED


def report(error: ToolkitError) -> bool:
    """In a process that `launch` started: leaves the message to it, which says it once. False in any other."""
    if OURS not in os.environ or ERROR_FILE not in os.environ:
        return False
    said = {"message": str(error), "lost": isinstance(error, LostRank), "extraInfo": {"timestamp": str(int(time.time()))}}
    target = Path(os.environ[ERROR_FILE])
    try:
        target.with_suffix(".new").write_text(json.dumps({"message": said}), encoding="utf-8")
        target.with_suffix(".new").replace(target)  # the launcher fails on half a file
    except OSError:
        return False
    return True
