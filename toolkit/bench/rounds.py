"""A round: a fresh process for each arm, all alive side by side, that take turns at being timed.

Turns of a third of a second cancel what changes more slowly than that, which on a shared machine is most of what changes:
the ratio of two equal arms spread by 8 % where each was timed for three seconds on end, and by 1.2 % in ten turns each.
"""

import random
from collections.abc import Sequence
from contextlib import ExitStack

from pydantic import ValidationError

from toolkit.bench.plan import ROUND_LIMIT_S
from toolkit.bench.result import Round
from toolkit.bench.sensors import cool_down
from toolkit.bench.worker import END, READY, TURN, Job, round_of
from toolkit.errors import DiskError, ToolkitError
from toolkit.limits import Limits, memory_bytes, seconds
from toolkit.workers import Message, WireError, Worker, started
from toolkit.workers.child import RESULT
from toolkit.workers.supervisor import EXIT_S

ROUND = "round"  # the task
SECONDS = 7 * 86_400.0  # no limit of the whole worker: it waits for the others' turns, and each of its own answers has a limit


def take(
    jobs: Sequence[Job], shuffle: random.Random, limit_s: float = ROUND_LIMIT_S, tasks: Sequence[str] = ()
) -> tuple[list[Round | str], list[int]]:
    """(a Round of each job, or in words how its worker ended; whose turn it was, one after the other).

    Workers are started in the order of `jobs`; `shuffle` decides whose turn it is. `tasks`: what each worker does, where it is not
    our own round. Each may use what toolkit/limits.py allows one worker.
    """
    outcomes: dict[int, Round | str] = {}
    alive: dict[int, Worker] = {}
    turns: list[int] = []

    def ask(place: int, tell: str | None, kind: str) -> Message | None:
        """The answer; None where there is none, and then that arm's round is over."""
        if tell is not None:
            alive[place].tell(tell)
        try:
            return alive[place].hear(kind, min(limit_s, seconds()) + 2 * jobs[place].seconds)
        except DiskError:  # that says nothing of the arm
            raise
        except ToolkitError as gone:
            outcomes[place] = str(gone)
            alive.pop(place).close()
            return None

    with ExitStack() as stack:
        for place in range(len(jobs)):
            cool_down()
            request = Message(jobs[place].model_dump(mode="json"))
            task = tasks[place] if tasks else ROUND
            alive[place] = stack.enter_context(started(task, request, limits=Limits(seconds=SECONDS, memory_bytes=memory_bytes())))
            if ask(place, None, READY) is not None:
                alive[place].relax()
        for _ in range(max((job.turns for job in jobs), default=0)):
            for place in shuffle.sample(sorted(alive), len(alive)):
                if ask(place, TURN, TURN) is not None:
                    turns.append(place)
        for place, worker in list(alive.items()):
            if (message := ask(place, END, RESULT)) is not None:
                outcomes[place] = worker.ended(None, EXIT_S).reason or _round(message)
    return [outcomes[place] for place in range(len(jobs))], turns


def _round(message: Message) -> Round | str:
    try:
        return round_of(message)
    except ValidationError as error:
        return f"its result cannot be read: {error.errors(include_url=False)[0]['msg']}"
    except WireError as error:
        return f"its result cannot be read: {error}"
