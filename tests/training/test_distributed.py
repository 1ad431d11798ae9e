"""Several processes are one run: all take the steps of one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from toolkit.devices import BACKENDS
from toolkit.errors import RecipeError
from toolkit.networks import build
from toolkit.ranks import Ranks
from toolkit.recipe import Recipe
from toolkit.training.loop import Run, steps_per_epoch


@pytest.mark.parametrize(("images", "ranks", "steps"), [(66, 1, 5), (66, 2, 5), (66, 3, 4), (64, 3, 4), (67, 3, 5)])
def test_a_last_batch_that_leaves_a_process_without_an_image_is_dropped(images, ranks, steps):
    assert steps_per_epoch(images, 16, ranks) == steps


def test_more_processes_than_images_are_refused(fresh):
    images, labels = torch.zeros(16, 1, 28, 28, dtype=torch.uint8), torch.zeros(16, dtype=torch.int64)
    recipe = Recipe.read(fresh.recipe)
    with pytest.raises(RecipeError, match=r"16 training images are too few for 17 processes.*Use a smaller --nproc"):
        Run(build(recipe, 10), images, labels, recipe.train, BACKENDS["cpu"], Ranks(3, 17))


IN_FLOAT64 = """
import json
import sys
import torch
from toolkit.data import load
from toolkit.devices import BACKENDS
from toolkit.networks import build
from toolkit.recipe import Recipe
from toolkit.ranks import joined
from toolkit.training.loop import Run
from toolkit.workspace import Workspace

recipe, data = Recipe.read(Workspace.of(sys.argv[1]).recipe, ["train.epochs=1", "train.ema=0.9", "train.rotate=10"]), load("digits")
torch.manual_seed(0)
with joined(BACKENDS["cpu"]) as ranks:
    run = Run(build(recipe, 10).double(), data.train_images, data.train_labels, recipe.train, BACKENDS["cpu"], ranks)
    losses = [each.loss for each in run.figures()]
    norms = [float(tensor.double().norm()) for tensor in run.result.state_dict().values()]
    if ranks.leads:
        print(json.dumps([*losses, *norms]))
"""


def test_in_float64_two_processes_take_the_very_steps_of_one(fresh, tmp_path):
    """What rounding hides in fp32 would be seen here: losses, and the norms of all weights and statistics, to eleven digits."""
    program = tmp_path / "program.py"
    program.write_text(IN_FLOAT64)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc-per-node", "2"]):
        command = [sys.executable, *launcher, str(program), str(fresh.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert len(found[0]) > 3
    assert found[1] == pytest.approx(found[0], rel=1e-11)
