"""The task `round`, and then which of the heavy libraries it has loaded. This file loads none of them."""

import sys

from toolkit.bench import worker
from toolkit.workers.child import Link
from toolkit.workers.wire import Message

HEAVY = ("torch", "onnxruntime", "onnx", "coremltools", "matplotlib", "sklearn", "jinja2")


def task(request: Message, link: Link) -> Message:
    found = worker.measure(request, link)
    link.tell("loaded", names=[name for name in HEAVY if name in sys.modules])
    return found
