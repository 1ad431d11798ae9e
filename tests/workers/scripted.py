"""A task whose program is given by a test: the worker around it, its process and its pipes are real."""

import os
from typing import Any

from toolkit.workers.child import Link
from toolkit.workers.wire import Message

TASK = "tests.workers.scripted:task"
SCRIPT = "TOOLKIT_TEST_SCRIPT"  # a worker gets this variable of ours, as its name begins with TOOLKIT_


def task(request: Message, link: Link) -> Message:
    """Runs the script. It finds `request`, `link` and `Message`, and sets `result` where it has one."""
    scope: dict[str, Any] = {"request": request, "link": link, "Message": Message, "result": Message({})}
    exec(os.environ[SCRIPT], scope)
    found: Message = scope["result"]
    return found
