"""Tasks of workers beside toolkit.bench.worker, with the same job.

slowed_by_0, …_1, …_5: a round in which every call spins for so many per cent of its own time, so that it is slower by exactly that.
clocks: one session, timed in turns by toolkit bench's own loop, by torch.utils.benchmark and by MLPerf LoadGen.
"""

import itertools
import random
import time
from functools import partial
from typing import Any

import numpy as np

from toolkit.bench import loadgen, worker
from toolkit.bench.clock import back_to_back
from toolkit.bench.worker import Job
from toolkit.workers.child import Link
from toolkit.workers.wire import Message


class Slowed:
    """Any session, slower by a share of its own time."""

    def __init__(self, session: Any, share: float) -> None:
        self.session, self.share = session, share

    def __call__(self, batch: Any) -> Any:
        start = time.perf_counter_ns()
        outputs = self.session(batch)
        stop = time.perf_counter_ns()
        until = stop + int((stop - start) * self.share)
        while time.perf_counter_ns() < until:
            pass
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def _slowed(share: float, request: Message, link: Link) -> Message:
    from toolkit.runtimes import Runtime

    real = Runtime.open
    Runtime.open = lambda self, *given, **named: Slowed(real(self, *given, **named), share)  # type: ignore[method-assign, assignment]
    return worker.measure(request, link)


slowed_by_0, slowed_by_1, slowed_by_5 = (partial(_slowed, share) for share in (0.0, 0.01, 0.05))


def clocks(request: Message, link: Link) -> Message:
    """Tool → p50 in milliseconds of each turn; a turn of each, in changing order, `job.turns` times."""
    job = Job.model_validate(request.fields)
    import torch
    from torch.utils.benchmark import Timer

    with worker.opened(job) as (session, inputs, _, _):
        worker._warm_up(session, inputs, job.warmup_calls)
        turns = itertools.cycle(inputs)

        def ours(seconds: float) -> float:
            return float(np.median(back_to_back(session, inputs, 1, seconds, lambda *_: None).samples)) / 1e6

        def torchs(seconds: float) -> float:
            timer = Timer("session(next(turns))", globals={"session": session, "turns": turns}, num_threads=torch.get_num_threads())
            return timer.blocked_autorange(min_run_time=seconds).median * 1e3

        def mlperfs(seconds: float) -> float:
            return float(loadgen.single_stream(session, inputs, seconds)["p50_ms"])

        tools = {"toolkit bench": ours, "torch.utils.benchmark": torchs, "LoadGen": mlperfs}
        found: dict[str, list[float]] = {name: [] for name in tools}
        shuffle = random.Random(job.seed)
        for _ in range(job.turns):
            for name in shuffle.sample(sorted(tools), len(tools)):
                session(inputs[0])
                found[name].append(tools[name](job.seconds / job.turns))
        return Message(found)
