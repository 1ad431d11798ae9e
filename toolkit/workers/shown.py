"""Show here what a worker says of its progress there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from toolkit.progress import BEGUN, DONE, OVER, SAID, progress, say
from toolkit.workers.wire import Message


@contextmanager
def shown() -> Iterator[Callable[[str, Message], None]]:
    """Yield a function that takes every message of a worker and shows those that `toolkit.progress.relayed` sends.

    They are a stranger's words: what has not the form of such a message is not shown.
    """
    with ExitStack() as bars:
        updates: list[tuple[ExitStack, Callable[..., None], int]] = []

        def hear(kind: str, message: Message) -> None:
            fields: dict[str, Any] = dict(message.fields)
            if kind == SAID:
                say(str(fields.get("text")))
            elif kind == BEGUN and (total := _count(fields.get("total"))):
                bar = bars.enter_context(ExitStack())
                shown = progress(str(fields.get("title")), total, str(fields.get("unit")), _count(fields.get("done")))
                updates.append((bar, bar.enter_context(shown), total))
            elif kind == DONE and updates:
                _, update, total = updates[-1]
                figures = fields.get("figures")
                named = {str(name): value for name, value in figures.items() if type(value) is float} if isinstance(figures, dict) else {}
                update(min(_count(fields.get("done")), total), **named)
            elif kind == OVER and updates:
                updates.pop()[0].close()

        yield hear


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < 1 << 62 else 0
