"""One round of one arm, in a process of its own: `python -m toolkit.bench.worker '<job as JSON>'` prints a Round.

A process each, because runtimes disturb one another: ONNX Runtime's spinning threads made PyTorch look five times slower.
"""

import gc
import json
import math
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import TORCH, Artifact
from toolkit.bench.plan import PRESETS, WARMUP_SECONDS, Preset
from toolkit.bench.result import Round
from toolkit.checkpoint import Checkpoint
from toolkit.devices import peak_memory_bytes
from toolkit.errors import ToolkitError
from toolkit.runtimes import Session, find
from toolkit.tensors import IMAGE, LOGITS, Batch

MOST_CALLS = 200_000
STATUS = Path("/proc/self/status")


def main() -> int:
    job = json.loads(sys.argv[1])
    try:
        print(run(job).model_dump_json())
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run(job: dict[str, Any]) -> Round:
    """Loads, verifies, warms up, times. Raises ToolkitError when the outputs are not the golden ones."""
    folder, runtime = Path(job["folder"]), find(job["runtime"])
    is_checkpoint = job["format"] == TORCH
    artifact = Artifact.of_checkpoint(Checkpoint.open(folder)) if is_checkpoint else Artifact.open(folder)
    runtime.why_not()  # imports the library: an import is not part of loading a model
    started = time.perf_counter_ns()
    session = runtime.open(artifact, threads=job["threads"])
    load_ns = time.perf_counter_ns() - started
    try:
        inputs = _inputs(artifact, job["batch"], is_checkpoint)
        started = time.perf_counter_ns()
        session(inputs[0])
        first_ns = time.perf_counter_ns() - started
        error = None if is_checkpoint else _verify(session, artifact, job["allowed_abs_logit"])
        preset = PRESETS[job["preset"]]
        warmup = _warm_up(session, inputs, preset.warmup_calls)
        samples, framework, wall = timed(session, inputs, preset)
        return Round(
            load_ns=load_ns, first_call_ns=first_ns, warmup_calls=warmup, samples_ns=samples, wall_ns=wall,
            framework_ns=framework, peak_memory_bytes=_peak_bytes(), max_abs_logit=error,
            placement=list(session.placement()),
        )  # fmt: skip
    finally:
        session.close()


def _inputs(artifact: Artifact, batch: int, is_checkpoint: bool) -> list[Batch]:
    """Several distinct batches to take turns: golden images where there are some, else noise of a fixed seed."""
    shape = artifact.manifest.inputs[0].shape[1:]
    if is_checkpoint:
        images = np.random.default_rng(0).integers(0, 256, (16, *shape)).astype(np.float32)
    else:
        images, _ = artifact.golden()
    wanted = np.arange(8 * batch).reshape(8, batch) % len(images)
    return [{IMAGE: np.ascontiguousarray(images[rows])} for rows in wanted]


def _verify(session: Session, artifact: Artifact, allowed: float | None) -> float:
    """A latency of wrong outputs means nothing: eight golden images first."""
    images, logits = artifact.golden()
    found = np.concatenate([session({IMAGE: image[None]})[LOGITS] for image in images[:8]])
    error = float(np.abs(found - logits[:8]).max())
    if not error <= (math.inf if allowed is None else allowed):  # also when it is NaN
        raise ToolkitError(f"{artifact.id} computes wrong outputs here: max |Δ logit| {error:.3g}, allowed {allowed}; not timed")
    return error


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


def timed(session: Session, inputs: list[Batch], preset: Preset) -> tuple[list[int], list[int], int]:
    """(samples, the runtime's own timings, wall time), all ns. Nothing is printed, allocated or collected in between."""
    now, samples, framework = time.perf_counter_ns, array("q", bytes(8 * MOST_CALLS)), array("q")
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        done, began = 0, now()
        deadline = began + int(preset.seconds * 1e9)
        while done < MOST_CALLS:
            batch = inputs[done % len(inputs)]
            start = now()
            session(batch)
            stop = now()
            samples[done] = stop - start
            done += 1
            own = session.framework_ns()
            if own is not None:
                framework.append(own)
            if stop >= deadline and done >= preset.calls:
                break
        wall = now() - began
    finally:
        gc.enable()
        gc.unfreeze()
    return samples[:done].tolist(), framework.tolist(), wall


if __name__ == "__main__":
    sys.exit(main())
