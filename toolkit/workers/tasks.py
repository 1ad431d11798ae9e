"""TASKS: what a worker can be told to do. A line names the function: `(request: Message, link: Link) -> Message`.

The functions live in the rooms that need them, and are imported in the worker alone.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

TASKS = {
    "answers": "toolkit.validation.worker:answer",  # all that validation asks one runtime about one artifact
    "interfaces": "toolkit.validation.worker:interfaces",  # what the model files say of themselves
    "admit": "toolkit.runtimes.strangers:task",  # a model file from elsewhere, before a library opens it
    "round": "toolkit.bench.worker:measure",  # one round of one arm
    "loadgen": "toolkit.bench.loadgen:measure",  # the same session, timed by MLPerf LoadGen
    "convert": "toolkit.export.alone:task",
    "run": "toolkit.export.alone:run_task",
    "predict": "toolkit.predict:task",
    "inspect": "toolkit.inspection:task",
    "debug": "toolkit.debug.alone:task",
    "hazards": "toolkit.debug.alone:hazards_task",
    "self-test": "toolkit.faults.alone:task",
}


def find(name: str) -> Callable[..., Any]:
    """Import the function of a task. `name`: a key of TASKS, or `module:function` (of a benchmark, or a test)."""
    module, _, function = TASKS.get(name, name).partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
