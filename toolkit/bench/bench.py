"""The verb: plan the arms, run their rounds in random order, each in a process of its own, and sum up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pydantic import ValidationError

from toolkit.artifact import TORCH, Artifact
from toolkit.bench.plan import PRESETS, ROUND_LIMIT_S, Options, order
from toolkit.bench.result import Arm, BenchResult, Round, Skipped
from toolkit.bench.stats import summarise
from toolkit.checkpoint import Checkpoint
from toolkit.environment import describe
from toolkit.errors import RuntimeUnavailable
from toolkit.gates import allowed
from toolkit.progress import progress
from toolkit.recipe import Gates, Recipe
from toolkit.runtimes import Runtime, select
from toolkit.selection import artifacts_of
from toolkit.workspace import Workspace, write_text

REPORT = "bench.json"
NOT_A_DEVICE = "it computes results on this machine's CPU, not a device's latencies"


@dataclass(frozen=True)
class Plan:
    """One arm before it is measured."""

    artifact: Artifact
    runtime: Runtime
    allowed_abs_logit: float | None  # None: not judged by its logits, such as compressed weights

    @property
    def id(self) -> str:
        return f"{self.artifact.id}:{self.runtime.id}"

    def job(self, options: Options) -> str:
        return json.dumps({
            "folder": str(self.artifact.folder.absolute()), "format": self.artifact.format, "runtime": self.runtime.id,
            "batch": options.batch, "threads": options.threads, "preset": options.preset, "allowed_abs_logit": self.allowed_abs_logit,
        })  # fmt: skip


def bench(
    workspace: Workspace, *, runtimes: Sequence[str] | None = None, artifacts: Sequence[str] | None = None, options: Options | None = None
) -> BenchResult:
    """Measures and writes reports/bench.json. Raises RuntimeUnavailable when nothing can be measured here."""
    options = options or Options()
    chosen = select(runtimes)
    checkpoint = Checkpoint.open(workspace.checkpoint)
    plans, skipped = _plan(chosen, artifacts_of(workspace, checkpoint, artifacts), checkpoint, Recipe.read(workspace.recipe).gates)
    if not plans:
        raise RuntimeUnavailable("nothing can be measured here:\n  " + "\n  ".join(f"{s.runtime}: {s.reason}" for s in skipped))
    turns = order(len(plans), PRESETS[options.preset].rounds, options.seed)
    before, started = os.getloadavg(), datetime.now(UTC)
    rounds: list[list[Round]] = [[] for _ in plans]
    errors: list[str | None] = [None for _ in plans]
    with progress("bench", len(turns), unit="rounds") as update:
        for done, (_, arm) in enumerate(turns, start=1):
            if errors[arm] is None:  # a failed arm is not tried again
                outcome = run_round(plans[arm].job(options))
                if isinstance(outcome, Round):
                    rounds[arm].append(outcome)
                else:
                    errors[arm] = outcome
            update(done)
    result = BenchResult(
        model=checkpoint.recipe.name, checkpoint_sha256=checkpoint.card.weights_sha256, preset=options.preset,
        batch=options.batch, threads=options.threads, seed=options.seed,
        order=[f"{number}:{plans[arm].id}" for number, arm in turns], started_utc=started.isoformat(timespec="seconds"),
        arms=[_arm(*each, options.batch) for each in zip(plans, rounds, errors, strict=True)], skipped=skipped,
        environment=describe(), load_average_before=list(before), load_average_after=list(os.getloadavg()),
    )  # fmt: skip
    write_text(workspace.reports / REPORT, result.model_dump_json(indent=1))
    return result


def _allowed(gates: Gates, checkpoint: Checkpoint, artifact: Artifact, runtime: Runtime) -> float | None:
    """The gate of the golden outputs; a checkpoint has none, and needs none."""
    if artifact.format == TORCH:
        return None
    largest = float(np.abs(artifact.golden()[1]).max())
    return allowed(gates, checkpoint, artifact.manifest, largest, runtime.precision).max_abs_logit


def _plan(
    chosen: Sequence[Runtime], artifacts: Sequence[Artifact], checkpoint: Checkpoint, gates: Gates
) -> tuple[list[Plan], list[Skipped]]:
    plans, skipped = [], []
    for runtime in chosen:
        readable = [artifact for artifact in artifacts if artifact.format == runtime.reads]
        if not readable:
            skipped.append(Skipped(artifact=None, runtime=runtime.id, reason=f"there is no {runtime.reads} artifact"))
        for artifact in readable:
            reason = runtime.why_not() if runtime.is_device else NOT_A_DEVICE
            if reason is not None:
                skipped.append(Skipped(artifact=artifact.id, runtime=runtime.id, reason=reason))
            else:
                plans.append(Plan(artifact, runtime, _allowed(gates, checkpoint, artifact, runtime)))
    return plans, skipped


def run_round(job: str, limit_s: float = ROUND_LIMIT_S) -> Round | str:
    """A Round, or in words how the worker ended: its own message, a signal, or the time limit."""
    # -P and this sys.path: it imports what we import, and no random.py that lies in the user's folder.
    command = [sys.executable, "-P", "-m", "toolkit.bench.worker", job]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="backslashreplace", env=environment, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {limit_s:g} s and was stopped"
    last = "; ".join(done.stderr.strip().splitlines()[-3:])
    if done.returncode < 0:
        return f"was killed by {_signal_name(-done.returncode)}; last words: {last or 'none'}"
    if done.returncode != 0:
        return last or f"ended with exit code {done.returncode} and no message"
    try:
        return Round.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError):
        return f"printed no result but {done.stdout.strip()[-80:]!r}; last words: {last or 'none'}"


def _signal_name(number: int) -> str:
    """SIGKILL for 9; real-time signals have no name."""
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")


def _arm(plan: Plan, rounds: list[Round], error: str | None, batch: int) -> Arm:
    return Arm.model_validate({
        "artifact": plan.artifact.id, "runtime": plan.runtime.id, "precision": plan.artifact.manifest.precision,
        "version": plan.runtime.version(), "rounds": rounds, "error": error,
        **summarise([] if error else rounds, batch),
    })  # fmt: skip
