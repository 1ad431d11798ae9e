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
from toolkit.bench.worker import END, READY, ROUND, TURN, Job
from toolkit.processes import Silent, Speaking, speaking

WORKER = "toolkit.bench"  # its __main__
EXIT_S = 30.0  # that a worker may take to end after its last word


def take(
    jobs: Sequence[Job], shuffle: random.Random, limit_s: float = ROUND_LIMIT_S, workers: Sequence[Sequence[str]] = ()
) -> tuple[list[Round | str], list[int]]:
    """(a Round of each job, or in words how its worker ended; whose turn it was, one after the other).

    Workers are started in the order of `jobs`; `shuffle` decides whose turn it is. `workers`: module and first arguments of each
    job's worker, where it is not our own.
    """
    outcomes: dict[int, Round | str] = {}
    alive: dict[int, Speaking] = {}
    turns: list[int] = []

    def ask(place: int, tell: str | None, word: str) -> str | None:
        """The answer; None where there is none, and then that arm's round is over."""
        if tell is not None:
            alive[place].tell(tell)
        try:
            return alive[place].hear(word, limit_s + 2 * jobs[place].seconds)
        except Silent as gone:
            outcomes[place] = str(gone)
            del alive[place]
            return None

    with ExitStack() as stack:
        for place in range(len(jobs)):
            cool_down()
            module, *first = workers[place] if workers else (WORKER,)
            alive[place] = stack.enter_context(speaking(module, [*first, jobs[place].model_dump_json()]))
            ask(place, None, READY)
        for _ in range(max((job.turns for job in jobs), default=0)):
            for place in shuffle.sample(sorted(alive), len(alive)):
                if ask(place, TURN, TURN) is not None:
                    turns.append(place)
        for place, worker in list(alive.items()):
            if (text := ask(place, END, ROUND)) is not None:
                outcomes[place] = worker.end(seconds=EXIT_S).reason or _round(text)
    return [outcomes[place] for place in range(len(jobs))], turns


def _round(text: str) -> Round | str:
    try:
        return Round.model_validate_json(text)
    except ValidationError as error:
        return f"its result cannot be read: {error.errors(include_url=False)[0]['msg']}"
