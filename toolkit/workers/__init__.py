"""Run a task in a child process that is watched: its time, its memory, and how it ended, in words.

A file from elsewhere can crash, hang or eat the memory of whoever opens it. So every such file is opened here, by one of TASKS, in a
process of its own, and what comes back is checked before it is used. One supervisor (supervisor.py) starts and ends all of them, one
entry point (`python -m toolkit.workers`) begins them, and one format (wire.py) carries what is said in both directions.
"""

from toolkit.limits import Limits
from toolkit.workers.supervisor import Ended, Worker, WorkerLost, call, started
from toolkit.workers.wire import Message, WireError

__all__ = ["Ended", "Limits", "Message", "WireError", "Worker", "WorkerLost", "call", "started"]
