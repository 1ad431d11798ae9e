"""Workers beside toolkit.bench.worker, with the same job: `python -m benchmarks.latency_workers slowed SHARE JOB`, `… timer JOB`.

slowed: every call spins for SHARE of its own time, so that it is slower by exactly that. timer: torch.utils.benchmark on the same session.
"""

import itertools
import json
import sys
import time
from typing import Any

from toolkit.bench import worker
from toolkit.bench.worker import Job


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


def slowed(share: float) -> int:
    from toolkit.runtimes import Runtime

    real = Runtime.open
    Runtime.open = lambda self, *given, **named: Slowed(real(self, *given, **named), share)  # type: ignore[method-assign, assignment]
    return worker.main()


def timer(job: Job) -> None:
    """Milliseconds, the median of blocks of calls, in JSON."""
    from torch.utils.benchmark import Timer

    with worker.opened(job) as (session, inputs, _, _):
        worker._warm_up(session, inputs, job.warmup_calls)
        turns = itertools.cycle(inputs)
        measured = Timer("session(next(turns))", globals={"session": session, "turns": turns}, num_threads=job.threads or 2)
        print("\n" + json.dumps({"p50_ms": measured.blocked_autorange(min_run_time=job.seconds).median * 1e3}))


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "slowed":
        share = float(sys.argv[2])
        sys.argv[1:] = sys.argv[3:]
        sys.exit(slowed(share))
    timer(Job.model_validate_json(sys.argv[2]))
