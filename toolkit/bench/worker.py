"""One round of one arm, in a worker (toolkit/workers): the task `round`.

It says READY once it has loaded, verified and warmed up; is told TURN for each stretch of timed calls, and says the same when that
is over; is told END, and answers with a Round.

A process each, because runtimes disturb one another: ONNX Runtime's spinning threads made PyTorch look five times slower.
"""

import contextlib
import math
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import TORCH, Artifact, golden_arrays
from toolkit.bench.clock import Timed, back_to_back, paced, undisturbed
from toolkit.bench.plan import AWAKE_CALLS, WARMUP_SECONDS, Scenario
from toolkit.bench.result import Placement, Round, Turn
from toolkit.bench.sensors import read
from toolkit.checkpoint import Checkpoint
from toolkit.devices import peak_memory_bytes
from toolkit.errors import ToolkitError
from toolkit.records import Frozen
from toolkit.runtimes import Session, find
from toolkit.runtimes.files import described, images_in, made_up
from toolkit.tensors import IMAGE, LOGITS, Batch
from toolkit.workers.child import Link
from toolkit.workers.wire import Message, WireError

BATCHES = 8  # distinct ones, that take turns
FIRST = 8  # golden images that are run one by one before anything is timed
SAMPLED, MOST_KEPT = 0.05, 1000  # of the timed calls, those whose outputs are looked at
MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"  # ops that Metal lacks then run on the CPU, without a word
STATUS = Path("/proc/self/status")
READY, TURN, END = "ready", "turn", "end"
SERIES = ("samples_ns", "service_ns", "framework_ns")  # of a Round: they travel as arrays, not as millions of numbers in JSON


class Job(Frozen):
    """`golden`: .npz of images (N, C, H, W) float32 and logits (N, classes) that are right for them; None: a file from elsewhere.

    `shapes`: of inputs of such a file, where it leaves them open.
    """

    number: int
    path: str  # an artifact's or a checkpoint's folder; of a file from elsewhere the file
    runtime: str
    batch: int
    threads: int | None
    scenario: Scenario
    calls: int
    seconds: float
    turns: int
    hz: float | None
    warmup_calls: int
    golden: str | None
    allowed_abs_logit: float | None
    shapes: dict[str, tuple[tuple[int, ...], str | None]]  # and types, where the file does not say them
    seed: int


def measure(request: Message, link: Link) -> Message:
    """The task `round`. The job is the request's fields."""
    job = Job.model_validate(request.fields)
    return message(run(job, _told(job.turns, link)))


def message(done: Round) -> Message:
    fields = done.model_dump(mode="json", exclude=set(SERIES))
    return Message(fields, {name: np.array(getattr(done, name), np.int64) for name in SERIES})


def round_of(message: Message) -> Round:
    """The round that a worker gave. Raises WireError, or pydantic's ValidationError, for what is none."""
    if set(message.arrays) != set(SERIES) or any(each.dtype != np.int64 or each.ndim != 1 for each in message.arrays.values()):
        raise WireError(f"a round has the series {', '.join(SERIES)}, not {', '.join(sorted(message.arrays)) or 'none'}")
    return Round.model_validate({**message.fields, **{name: array.tolist() for name, array in message.arrays.items()}})


def _told(turns: int, link: Link) -> Iterator[int]:
    """One turn after the other, each when it is told; after the last it waits until all arms have had theirs."""
    link.tell(READY)
    for turn in range(turns):
        link.hear(TURN)
        yield turn
        link.tell(TURN)
    link.hear(END)


def run(job: Job, turns: Iterable[int] | None = None) -> Round:
    """Loads, verifies, warms up, times in turns, verifies. Raises ToolkitError when the outputs before timing are not the golden ones."""
    starting = read()
    with opened(job) as (session, inputs, expected, cold):
        first_ns = _first_call(job, session, inputs[0])
        begun = Turn(calls=0, before=starting, after=read())  # of a cold round this is what is measured
        check = Verified(job.allowed_abs_logit)
        if expected is not None:
            for batch, logits in zip(_singly(inputs), _singly(expected), strict=True):
                check("before", _logits(session(batch), job), logits)
        if not check.right:
            raise ToolkitError(
                f"{Path(job.path).name} computes wrong outputs here: max |Δ logit| {check.largest:.3g}, "
                f"allowed {job.allowed_abs_logit}; not timed"
            )
        warmup = 0 if job.scenario == "cold" else _warm_up(session, inputs, job.warmup_calls)
        kept, timed, taken = _Kept(job.seed), Timed(), list[Turn]()
        with undisturbed():  # once: collecting takes a tenth of a second with a large library, and there are ten turns
            for turn in range(job.turns) if turns is None else turns:
                for place in range(AWAKE_CALLS if job.scenario != "cold" else 0):
                    session(inputs[place])
                if job.scenario == "cold":
                    taken.append(begun)
                    continue
                calls, before = len(timed.samples), read(power=turn == 0)
                timed.add(_timed(job, session, inputs, kept, calls))
                taken.append(Turn(calls=len(timed.samples) - calls, before=before, after=read(power=turn == job.turns - 1)))
        if expected is not None:
            for place, outputs in kept.outputs:
                check("during", outputs, expected[place % len(inputs)])
            check("after", _logits(session(inputs[-1]), job), expected[-1])
        peak = _peak_bytes()  # before the samples become a list, which takes five times the memory
        return Round(
            number=job.number, first_call_ns=first_ns, warmup_calls=warmup, samples_ns=timed.samples.tolist(), service_ns=timed.service,
            wall_ns=timed.wall, framework_ns=timed.framework, peak_memory_bytes=peak, verified=check.counts,
            max_abs_logit=check.largest if check.counts else None, allowed_abs_logit=job.allowed_abs_logit,
            placement=_placement(job, session), images=job.batch if expected is not None else _images(job, session, inputs[0]),
            turns=taken, **cold,
        )  # fmt: skip


def _logits(found: Batch, job: Job) -> Any:
    """Raises ToolkitError where there are none, or no numbers. A shape that is not the expected one is an infinite difference."""
    logits = found.get(LOGITS)
    if not isinstance(logits, np.ndarray) or logits.dtype.kind not in "fiu":
        raise ToolkitError(f"{Path(job.path).name} gives {', '.join(found) or 'nothing'}, and no {LOGITS} that are numbers; not timed")
    return logits


def _images(job: Job, session: Session, batch: Batch) -> int:
    # Without golden images the file is from elsewhere, and its session one that tells its inputs: here and in _inputs.
    return images_in(session.inputs(), batch, job.batch, job.shapes)  # type: ignore[attr-defined]


def _first_call(job: Job, session: Session, batch: Batch) -> int:
    """Nanoseconds. Raises ToolkitError where a file from elsewhere does not take what was made up for it."""
    started = time.perf_counter_ns()
    try:
        session(batch)
    except Exception as error:
        if job.golden is not None or isinstance(error, ToolkitError):
            raise
        name, said = next(iter(batch), "NAME"), str(error).strip().splitlines() or [type(error).__name__]
        raise ToolkitError(
            f"{Path(job.path).name} does not run on what was made up ({described(batch)}): {said[0]} "
            f"Give sizes that it takes: --shape {name}=1x3x224x224 (inputs are handed over as tensors, one by one)"
        ) from error
    return time.perf_counter_ns() - started


def _placement(job: Job, session: Session) -> Placement:
    requested, setting = ", ".join(session.placement()) or job.runtime, os.environ.get(MPS_FALLBACK, "0")
    falls = requested.startswith("mps") and setting not in ("", "0")
    return Placement(requested=requested, planned=session.planned(), fallback=f"{MPS_FALLBACK}={setting}" if falls else None)


@contextlib.contextmanager
def opened(job: Job) -> Iterator[tuple[Session, list[Batch], list[Any] | None, dict[str, int | None]]]:
    """(session, inputs, the logits that are right for each of them, what compiling and loading took)."""
    runtime, path = find(job.runtime), Path(job.path)
    if (reason := runtime.why_not()) is not None:  # imports the library: an import is not part of loading a model
        raise ToolkitError(f"{runtime.id} cannot run here: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        compile_ns = None
        if job.golden is None:
            started = time.perf_counter_ns()
            session: Session = runtime.open_file(path, job.threads, trust=True)  # it was admitted by who made the job
        else:
            artifact = Artifact.of_checkpoint(Checkpoint.open(path)) if runtime.reads == TORCH else Artifact.open(path)
            started = time.perf_counter_ns()
            if runtime.compile(artifact, Path(folder)):
                compile_ns = time.perf_counter_ns() - started
            started = time.perf_counter_ns()
            session = runtime.open(artifact, threads=job.threads)
        load_ns = time.perf_counter_ns() - started
        try:
            inputs, expected = _inputs(job, session)
            yield session, inputs, expected, {"compile_ns": compile_ns, "load_ns": load_ns}
        finally:
            session.close()


class Verified:
    """Counts outputs that were compared, and the largest difference among them."""

    def __init__(self, allowed: float | None) -> None:
        self.allowed, self.counts, self.largest = math.inf if allowed is None else allowed, dict[str, int](), 0.0

    def __call__(self, when: str, found: Any, expected: Any) -> None:
        self.counts[when] = self.counts.get(when, 0) + 1
        error = float(np.abs(found.astype(np.float64) - expected).max()) if found.shape == expected.shape else math.inf
        self.largest = max(self.largest, error) if math.isfinite(error) else math.inf

    @property
    def right(self) -> bool:
        return self.largest <= self.allowed and math.isfinite(self.largest)


class _Kept:
    """Copies of the outputs of calls that the seed draws, and of the first.

    Of however many calls there will be MOST_KEPT stay, each with the same chance (reservoir sampling): the last turn is looked at
    as much as the first one.
    """

    def __init__(self, seed: int) -> None:
        self.drawn = np.random.default_rng(seed).random(1 << 16) < SAMPLED
        self.drawn[0] = True
        self.chance, self.seen = random.Random(seed), 0
        self.outputs: list[tuple[int, Any]] = []

    def __call__(self, place: int, outputs: Batch) -> None:
        if not self.drawn[place & 0xFFFF] or LOGITS not in outputs:
            return
        self.seen += 1
        if len(self.outputs) < MOST_KEPT:
            self.outputs.append((place, np.array(outputs[LOGITS])))
        elif (instead := self.chance.randrange(1, self.seen)) < MOST_KEPT:  # the first call's is never replaced
            self.outputs[instead] = (place, np.array(outputs[LOGITS]))


def _timed(job: Job, session: Session, inputs: list[Batch], kept: _Kept, first: int) -> Timed:
    """A turn: its share of the calls and of the time."""
    if job.scenario == "paced":
        assert job.hz is not None
        return paced(session, inputs, job.hz, job.calls, kept, time.sleep)
    return back_to_back(session, inputs, math.ceil(job.calls / job.turns), job.seconds / job.turns, kept, first)


def _inputs(job: Job, session: Session) -> tuple[list[Batch], list[Any] | None]:
    """Distinct batches to take turns, the golden images in them, and their logits; of a file from elsewhere made-up numbers."""
    if job.golden is None:
        return [made_up(session.inputs(), job.batch, job.shapes, seed) for seed in range(BATCHES)], None  # type: ignore[attr-defined]
    images, logits = golden_arrays(Path(job.golden))
    wanted = np.arange(BATCHES * job.batch).reshape(BATCHES, job.batch) % len(images)
    return [{IMAGE: np.ascontiguousarray(images[rows])} for rows in wanted], [logits[rows] for rows in wanted]


def _singly(batches: list[Any]) -> list[Any]:
    """The first images, or rows of logits, each a batch of one."""
    if isinstance(batches[0], dict):
        return [{IMAGE: np.ascontiguousarray(image[None])} for image in np.concatenate([each[IMAGE] for each in batches])[:FIRST]]
    return list(np.concatenate(batches)[:FIRST, None])


def _peak_bytes() -> int:
    """The most resident memory of this process alone.

    On Linux from VmHWM: ru_maxrss survives exec (getrusage(2)), so that a worker would report the size of who started it.
    """
    if STATUS.is_file():
        for name, value in (line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line):
            if name == "VmHWM":
                return int(value.split()[0]) * 1024  # "  8700 kB"
    return peak_memory_bytes()


def _warm_up(session: Session, inputs: list[Batch], calls: int) -> int:
    done, until = 0, time.perf_counter() + WARMUP_SECONDS
    while done < calls or time.perf_counter() < until:
        session(inputs[done % len(inputs)])
        done += 1
    return done
