"""The verb: recipe → data → device → loop → checkpoint → accuracy measured again from the saved file."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit import devices
from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset, load
from toolkit.networks import build, from_checkpoint, parameter_counts
from toolkit.progress import progress, quietly, say
from toolkit.ranks import Ranks, joined
from toolkit.recipe import Recipe
from toolkit.scratch import put_back, recover
from toolkit.training import keep
from toolkit.training.curves import MetricsLog
from toolkit.training.evaluate import count_correct, reaches
from toolkit.training.guards import check_finite, check_weights, say_first_loss
from toolkit.training.interrupt import interruptible
from toolkit.training.loop import LOG_STEPS, Run
from toolkit.training.selftest import check_gradients
from toolkit.training.split import Split
from toolkit.workspace import Workspace, keep_recipe
from toolkit.writing import alone_in

SAVE_MINUTES = 10.0  # within an epoch; a checkpoint is written at every epoch's end anyway
LOOK_IMAGES = 1000  # visits between two looks whether the accuracy that was asked for is reached


@dataclass(frozen=True)
class TrainResult:
    """`metrics`: measured from the saved file, once training has ended; accuracies are shares of 1.

    `reached`: whether the accuracy that was asked for was, None where none was. `seconds`: how long each phase of this process
    took, of a resumed run since it was resumed.
    """

    checkpoint: Path
    finished: bool
    metrics: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)
    reached: bool | None = None

    @property
    def missed(self) -> bool:
        return self.reached is False


@contextmanager
def session(device: str) -> Iterator[tuple[devices.Backend, Ranks]]:
    """The device, and the processes that share the work: torchrun starts several, of which the first one speaks."""
    backend, reason = devices.choose(device)
    with joined(backend) as ranks, nullcontext() if ranks.leads else quietly():
        say(f"device: {backend.id} ({reason})" + (f"; {ranks.size} processes" if ranks.size > 1 else ""))
        yield backend, ranks


def train(workspace: Workspace, recipe: Recipe, *, device: str = "auto", **options: Any) -> TrainResult:
    """Trains to the end of the recipe, or to Ctrl-C. Either way the workspace then holds a usable checkpoint.

    `options` are those of `Training`. Under torchrun every process calls this, and the first one writes.
    Raises DeviceError, DataError, CheckpointError (another recipe; a run that is there, and nobody gave up), ToolkitError (diverged).
    """
    with session(device) as (backend, ranks):
        return Training(workspace, recipe, backend, ranks, **options).end()


@dataclass
class Training:
    """One run: what its phases share, and how long each has taken.

    `resume`: go on from the checkpoint of an unfinished run, or begin where there is none; a finished one stays. `restart`: begin
    anew although a run is there, finished or not; without either, what is there is refused. `tensorboard`: event files too, in
    tensorboard/ of the workspace. `instead_of`: a workspace whose unfinished run is given up as soon as this one has a checkpoint.
    """

    workspace: Workspace
    recipe: Recipe
    backend: devices.Backend
    ranks: Ranks
    data_dir: Path | None = None
    resume: bool = False
    restart: bool = False
    save_minutes: float = SAVE_MINUTES
    tensorboard: bool = False
    instead_of: Workspace | None = None

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.metrics: dict[str, float] = {}  # as the loop last read them
        self.looked_at = 0  # image visits at the last look whether the goal is reached
        self.stopped = False  # told to while its last step, look or save was under way: it is finished all the same

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts under `name`, but for the phases within it, which count themselves."""
        started, before = time.monotonic(), sum(self.seconds.values())
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started - (sum(self.seconds.values()) - before)

    def end(self) -> TrainResult:
        with self.phase("data"):
            data = self._data()
        split = Split.of(data, self.recipe.train)
        with alone_in(self.workspace.folder) if self.ranks.leads else nullcontext():
            return self._end(data, split)

    def _end(self, data: Dataset, split: Split) -> TrainResult:
        if self.ranks.leads:
            put_back(self.workspace.folder)
        self.ranks.wait()
        previous = keep.to_resume(self.workspace, self.recipe) if self.resume else None
        if not (self.resume or self.restart):
            keep.refuse_to_lose(self.workspace, self.recipe)
        if self.ranks.leads:
            keep_recipe(self.workspace)
        if previous is None and self.ranks.leads:
            keep.say_what_is_replaced(self.workspace, self.recipe)
        if previous is not None and previous.card.finished:
            say(f"training had already finished; nothing to resume in {self.workspace.checkpoint}")
        elif not self._fit(data, split, previous):
            self.ranks.wait()  # until the file is there
            say(f"interrupted; the checkpoint in {self.workspace.checkpoint} is usable, and --resume goes on from it")
            metrics = Checkpoint.open(self.workspace.checkpoint).card.metrics
            return TrainResult(self.workspace.checkpoint, False, metrics, dict(self.seconds))
        metrics, goal = self._measure(data, split), self.recipe.train.until_accuracy
        reached = metrics["held_out_accuracy"] >= goal - 1e-9 if goal else None
        return TrainResult(self.workspace.checkpoint, True, metrics, dict(self.seconds), reached)

    def _data(self) -> Dataset:
        """One process fetches what is not there yet; the others find it."""
        if not self.ranks.leads:
            self.ranks.wait()
        data = load(self.recipe.data.set, self.data_dir)
        if self.ranks.leads:
            self.ranks.wait()
        return data

    def _model(self, data: Dataset, previous: Checkpoint | None) -> nn.Module:
        """On the device, fresh or as it was; a GPU has computed its gradients right once."""
        torch.manual_seed(self.recipe.train.seed)
        model = from_checkpoint(previous) if previous else build(self.recipe, len(data.classes), data.train_images.shape[1])
        say(f"model: {self.recipe.name}, {parameter_counts(model)['total']:,} parameters; data: {data.name}, "
            f"{len(data.train_images):,} train and {len(data.test_images):,} test images")  # fmt: skip
        if self.backend.id != "cpu":
            with self.phase("self-test"):
                error = check_gradients(model, data.train_images[:8], data.train_labels[:8], self.backend)
            say(f"self-test: gradients on {self.backend.id} agree with float64 on the CPU within {error:.1e}")
        return model.to(self.backend.torch_device)

    def _fit(self, data: Dataset, split: Split, previous: Checkpoint | None) -> bool:
        """Runs the loop, writing metrics and checkpoints. True when it came to its end, False when interrupted."""
        plan, device, model = self.recipe.train, self.backend.torch_device, self._model(data, previous)
        state = previous.resume_state() if previous else None
        if self.ranks.leads:
            keep.check_writable(self.workspace, self.recipe, sum(tensor.nbytes for tensor in model.state_dict().values()))
            recover(self.workspace.folder)
        run = Run(model, split.images.to(device), split.labels.to(device), plan, self.backend, self.ranks)
        say(f"in {run.setting['precision']}, {run.setting['layout']}, {run.setting['threads']} threads a process")
        if previous and state:
            self.metrics, self.looked_at = previous.card.metrics, keep.go_on(run, previous, state)
        log = MetricsLog(self.workspace, self.recipe, state, leads=self.ranks.leads, events=self.tensorboard)
        saved_at = time.monotonic()
        with self.phase("training"), interruptible() as stop, closing(log), self._progress(run) as update:
            over = state is not None and self._between_steps(run, split, log)
            for figures in () if over else run.figures(stop):
                check_finite(figures, plan.lr)
                if (figures.epoch, figures.step) == (0, 1):
                    say_first_loss(figures.loss, len(data.classes))
                update(run.visits, loss=figures.loss, accuracy=figures.accuracy)
                log.add(run.visits, asdict(figures))
                self.metrics = {"train_loss": figures.loss, "train_accuracy": figures.accuracy, "image_visits": run.visits}
                due = run.stopping or figures.epoch_ended or time.monotonic() - saved_at > 60 * self.save_minutes
                if due and not run.done:  # before the evaluation, which takes its time
                    self._save(data, run, log, {**run.state(), **log.state(), "looked_at": self.looked_at})
                    saved_at = time.monotonic()
                if run.stopping and not run.done:
                    return False
                if self._between_steps(run, split, log):
                    break
            self._save(data, run, log, None)
            self.stopped = self.ranks.any(stop())
        return True

    def _progress(self, run: Run) -> AbstractContextManager[Callable[..., None]]:
        return progress("train", run.all_visits, done=run.visits)

    def _between_steps(self, run: Run, split: Split, log: MetricsLog) -> bool:
        """What depends on how far the run has come, and on nothing else: a resumed run does it too. True: it is over."""
        goal = self.recipe.train.until_accuracy
        if goal and (run.done or (run.step % LOG_STEPS == 0 and run.visits - self.looked_at >= LOOK_IMAGES)):
            self.looked_at = run.visits
            with self.phase("evaluation"):
                there = reaches(run.result, split.judged, split.judged_labels, goal, self.backend, self.ranks)
            if there or run.done:
                verb, end = ("are", "stopping") if there else ("were not yet", "the end")
                say(f"{100 * goal:g} % of the {len(split.judged):,} held-out images {verb} right after {run.visits:,} image visits: {end}")
                return True
        if run.step == 0 and run.epoch and not run.done:
            log.add(run.visits, self._judge(run, split))
        return run.done

    def _judge(self, run: Run, split: Split) -> dict[str, float]:
        """For the curve, and on held-out images for choosing; the figures that count are measured at the end, from the saved file."""
        title = f"{split.judge} images, after epoch {run.epoch}"
        with self.phase("evaluation"):
            correct = count_correct(run.result, split.judged, split.judged_labels, self.backend, title, self.ranks)
        say(f"epoch {run.epoch}: {100 * correct / len(split.judged):.2f} % of the {split.judge} images right on {self.backend.id}")
        return {"epoch": run.epoch - 1, f"{split.judge.replace('-', '_')}_accuracy": correct / len(split.judged)}

    def _save(self, data: Dataset, run: Run, log: MetricsLog, resume: dict[str, Any] | None) -> None:
        check_weights(run.result, self.recipe.train.lr)
        if self.ranks.leads:
            with self.phase("saving"):
                keep.save(self.workspace, self.recipe, data, run, log, self.metrics, resume)
                if self.instead_of is not None:
                    keep.give_up(self.instead_of)

    def _measure(self, data: Dataset, split: Split) -> dict[str, float]:
        """The accuracies that count: of the saved file, in fp32, on the CPU, whatever device trained it."""
        self.ranks.wait()  # until the file is there
        checkpoint = Checkpoint.open(self.workspace.checkpoint)
        sets = {"test": (data.test_images, data.test_labels), split.judge: (split.judged, split.judged_labels)}
        keys = {name: name.replace("-", "_") for name in sets}
        missing = [name for name, key in keys.items() if f"{key}_accuracy" not in checkpoint.card.metrics]
        if not missing:
            return checkpoint.card.metrics
        model, cpu = from_checkpoint(checkpoint), devices.BACKENDS["cpu"]
        found: dict[str, float] = {}
        for name in missing:
            images, labels = sets[name]
            with self.phase("evaluation"):
                correct = count_correct(model, images, labels, cpu, f"{name}, from the saved file", self.ranks)
            right = {"correct": correct, "images": len(labels), "accuracy": correct / len(labels)}
            found |= {f"{keys[name]}_{figure}": value for figure, value in right.items()}
        return keep.add_metrics(self.workspace, checkpoint, found) if self.ranks.leads else {**checkpoint.card.metrics, **found}
