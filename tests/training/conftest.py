"""Short runs of the tiny model, a way to interrupt one at a chosen step, and a stand-in for a GPU."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from toolkit import devices
from toolkit.checkpoint import CARD, RESUME, Checkpoint
from toolkit.recipe import Recipe
from toolkit.training import TrainResult, train
from toolkit.workspace import Workspace

SHORT = ("train.subset=64", "train.batch_size=16", "train.epochs=3", "train.shift=1")  # four steps an epoch


@pytest.fixture
def short() -> Callable[..., TrainResult]:
    """Trains a workspace on 64 images, by default for three epochs of four steps; what is finished is trained again."""

    def run(workspace: Workspace, *overrides: str, device: str = "cpu", **options: Any) -> TrainResult:
        if (workspace.checkpoint / CARD).is_file() and not (workspace.checkpoint / RESUME).is_file():
            options = {"restart": not options.get("resume"), **options}
        return train(workspace, Recipe.read(workspace.recipe, [*SHORT, *overrides]), device=device, **options)

    return run


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The next run is asked to stop after so many steps, as by Ctrl-C in that very step."""
    from toolkit.training import loop

    def arrange(steps: int) -> None:
        taken = 0

        @contextmanager
        def interruptible() -> Iterator[Callable[[], bool]]:
            yield lambda: taken >= steps

        real = loop.augment

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            return real(*arguments, **options)

        monkeypatch.setattr("toolkit.training.loop.augment", counted)
        monkeypatch.setattr(sys.modules["toolkit.training.fit"], "interruptible", interruptible)

    return arrange


class FakeMps:
    """A backend that calls itself mps and computes on the CPU; counts how often it was waited for."""

    def __init__(self) -> None:
        self.synchronised = 0
        self.backend = devices.Backend("mps", "cpu", lambda: None, self._synchronise, lambda: 0, lambda: False)

    def _synchronise(self) -> None:
        self.synchronised += 1


@pytest.fixture
def fake_mps(monkeypatch: pytest.MonkeyPatch) -> FakeMps:
    fake = FakeMps()
    monkeypatch.setitem(devices.BACKENDS, "mps", fake.backend)
    return fake


@pytest.fixture
def weights_of() -> Callable[[Workspace], dict[str, Any]]:
    return lambda workspace: Checkpoint.open(workspace.checkpoint).weights()


@pytest.fixture
def records() -> Callable[[Workspace], list[dict[str, Any]]]:
    """Of a workspace's curves, without the one figure that no two runs share."""

    def read(workspace: Workspace) -> list[dict[str, Any]]:
        lines = workspace.metrics.read_text(encoding="utf-8").splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]

    return read
