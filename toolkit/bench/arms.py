"""Which arms there are: artifact × runtime × threads × batch, and why the others are left out."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.artifact import GOLDEN, TORCH, Artifact, golden_arrays
from toolkit.bench.plan import PILOT_SECONDS, PRESETS, Options
from toolkit.bench.result import Arm, Skipped
from toolkit.bench.worker import Job
from toolkit.checkpoint import Checkpoint
from toolkit.errors import RuntimeUnavailable, ToolkitError
from toolkit.gates import allowed
from toolkit.recipe import Gates, Recipe
from toolkit.runtimes import Runtime, select
from toolkit.runtimes.files import READS, Shapes, format_of
from toolkit.selection import artifacts_of, checkpoint_of
from toolkit.workspace import Workspace

NOT_A_DEVICE = "it computes results on this machine's CPU, not a device's latencies"
NOISE_IMAGES = 16


@dataclass(frozen=True)
class Plan:
    """One arm before it is measured. `golden` None: a file from elsewhere, with nothing to verify its outputs against."""

    name: str
    path: Path
    precision: str
    runtime: Runtime
    threads: int | None
    batch: int
    golden: Path | None
    allowed_abs_logit: float | None  # None: not judged by its logits, such as compressed weights
    shapes: Shapes
    control: bool = False

    @property
    def id(self) -> str:
        words = [f"{self.name}:{self.runtime.id}"]
        words += [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.threads is not None else []
        words += [f"batch {self.batch}"] if self.batch > 1 else []
        return " ".join([*words, *(["(A/A)"] if self.control else [])])

    def job(self, number: int, options: Options) -> Job:
        """Of round `number`; below zero: the pilot, a short one."""
        pilot = number < 0
        return Job(
            number=number, path=str(self.path.absolute()), runtime=self.runtime.id, batch=self.batch, threads=self.threads,
            scenario="stream" if pilot and options.scenario != "cold" else options.scenario, hz=options.hz,
            calls=min(3, options.timed_calls) if pilot else options.timed_calls,
            seconds=min(PILOT_SECONDS, options.timed_seconds) if pilot else options.timed_seconds,
            turns=1 if pilot else options.turns, warmup_calls=1 if pilot else PRESETS[options.preset].warmup_calls,
            golden=None if self.golden is None else str(self.golden.absolute()), allowed_abs_logit=self.allowed_abs_logit,
            shapes=self.shapes, seed=options.seed + max(0, number),
        )  # fmt: skip

    def arm(self) -> Arm:
        return Arm(
            id=self.id, artifact=self.name, runtime=self.runtime.id, precision=self.precision, version=self.runtime.version(),
            threads=self.threads, batch=self.batch, control=self.control, rounds=[], error=None,
        )  # fmt: skip


def of_model(
    workspace: Workspace, runtimes: Sequence[str] | None, artifacts: Sequence[str] | None, options: Options, folder: Path
) -> tuple[list[Plan], list[Skipped], Checkpoint]:
    """Arms of a checkpoint and its artifacts. `folder`: for what must be made. Raises RuntimeUnavailable where there are none."""
    chosen, checkpoint = select(runtimes), checkpoint_of(workspace)
    gates, there = Recipe.read(workspace.recipe).gates, artifacts_of(workspace, checkpoint, artifacts)
    pairs, skipped = list[tuple[Artifact, Runtime]](), list[Skipped]()
    for runtime in chosen:
        readable = [artifact for artifact in there if artifact.format == runtime.reads]
        if not readable:
            skipped.append(Skipped(artifact=None, runtime=runtime.id, reason=f"there is no {runtime.reads} artifact"))
        for artifact in readable:
            if (reason := _why_not(runtime, options)) is not None:
                skipped.append(Skipped(artifact=artifact.id, runtime=runtime.id, reason=reason))
            else:
                pairs.append((artifact, runtime))
    if not pairs:
        raise _nothing(skipped)
    exported = next((each for each in there if each.format != TORCH), None)
    if exported is not None:
        exported.golden()  # checked: PyTorch's own arm takes its numbers as they are
    golden = exported.folder / GOLDEN if exported is not None else _noise(checkpoint, folder)
    plans = [
        Plan(
            artifact.id, artifact.folder, runtime.precision or artifact.manifest.precision, runtime, threads, batch,
            golden if artifact.format == TORCH else artifact.folder / GOLDEN, _allowed(gates, checkpoint, artifact, runtime, golden), {},
        )
        for (artifact, runtime), threads, batch in itertools.product(pairs, options.threads, options.batches)
    ]  # fmt: skip
    return _with_control(plans, options), skipped, checkpoint


def of_file(path: Path, runtimes: Sequence[str] | None, options: Options, shapes: Shapes) -> tuple[list[Plan], list[Skipped]]:
    """Arms of a model file from elsewhere. Raises ToolkitError for a kind of file that is not known, or that nothing here can time."""
    if not path.exists():
        raise ToolkitError(f"there is no file {path}")
    if not (path.is_file() or path.is_dir()):
        raise ToolkitError(f"{path} is neither a file nor a folder, but a pipe, a socket or a device. Give a model file")
    if shapes and options.batch:
        raise ToolkitError("--shape says the batch size too, where it is axis 0; leave --batch out")
    if (form := format_of(path)) is None:
        raise ToolkitError(f"{path} is no model file that can be timed; there are {', '.join(READS)}")
    plans, skipped = list[Plan](), list[Skipped]()
    for runtime in select(runtimes):
        if runtime.reads != form or runtime.precision is not None or runtime.id == "null":
            if runtimes:
                skipped.append(Skipped(artifact=path.name, runtime=runtime.id, reason=f"it does not read {path.suffix} files"))
            continue
        if (reason := _why_not(runtime, options)) is not None:
            skipped.append(Skipped(artifact=path.name, runtime=runtime.id, reason=reason))
            continue
        plans += [
            Plan(path.name, path, "its own", runtime, threads, batch, None, None, shapes)
            for threads, batch in itertools.product(options.threads, (1,) if shapes else options.batches)
        ]
    if not plans:
        raise _nothing(skipped)
    return _with_control(plans, options), skipped


def _why_not(runtime: Runtime, options: Options) -> str | None:
    """None where its latency can be measured as asked."""
    if not runtime.is_device:
        return NOT_A_DEVICE
    if options.threads != (None,) and not runtime.threaded:
        return "it takes no number of threads; leave --threads out"
    return runtime.why_not()


def _with_control(plans: list[Plan], options: Options) -> list[Plan]:
    """The first arm once more, where there are verdicts: its ratio to itself shows what no difference looks like."""
    return [*plans[:1], replace(plans[0], control=True), *plans[1:]] if options.decides else plans


def _nothing(skipped: list[Skipped]) -> RuntimeUnavailable:
    return RuntimeUnavailable("nothing can be measured here:\n  " + "\n  ".join(f"{each.runtime}: {each.reason}" for each in skipped))


def _allowed(gates: Gates, checkpoint: Checkpoint, artifact: Artifact, runtime: Runtime, golden: Path) -> float | None:
    """The gate of the golden outputs. `null` computes nothing, so nothing is asked of it."""
    if runtime.id == "null":
        return None
    logits = golden_arrays(golden)[1] if artifact.format == TORCH else artifact.golden()[1]
    return allowed(gates, checkpoint, artifact.manifest, float(np.abs(logits).max()), runtime.precision).max_abs_logit


def _noise(checkpoint: Checkpoint, folder: Path) -> Path:
    """Without an artifact there are no golden outputs: noise of a fixed seed, and what PyTorch makes of it in float64."""
    import torch

    from toolkit.networks import from_checkpoint  # here: workers import this room, and their memory is measured

    images = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, *checkpoint.card.input_shape)).astype(np.float32)
    with torch.inference_mode():
        logits = from_checkpoint(checkpoint).double()(torch.from_numpy(images).double()).numpy()
    path = folder / GOLDEN
    np.savez(path, images=images, logits=logits)
    return path
