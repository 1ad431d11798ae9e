"""What tells a run that goes wrong from one that goes well, before a good checkpoint is lost to it."""

import math

from torch import nn

from toolkit.errors import ToolkitError
from toolkit.progress import say
from toolkit.training.loop import Figures


def say_first_loss(loss: float, classes: int) -> None:
    """A fresh network knows nothing: its loss is that of a guess, ln(classes), whatever the data are."""
    expected = math.log(classes)
    fits = (
        "as a network that knows nothing should have"
        if abs(loss - expected) < 0.5 * expected
        else "unlike a network that knows nothing: are inputs and labels as they should be?"
    )
    say(f"first step: loss {loss:.2f} (ln {classes} = {expected:.2f}), {fits}")


def check_finite(figures: Figures, peak: float) -> None:
    if not math.isfinite(figures.loss):
        where = f"by step {figures.step} of epoch {figures.epoch + 1}, at a learning rate of {figures.lr:.3g}"
        raise _diverged(f"the loss is {figures.loss} {where}", peak)


def check_weights(model: nn.Module, peak: float) -> None:
    """Before a checkpoint takes the place of a good one: a step can break the weights after a loss that was still finite."""
    if broken := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise _diverged(f"NaN or Inf in {', '.join(broken[:5])}", peak)


def _diverged(what: str, peak: float) -> ToolkitError:
    return ToolkitError(
        f"training diverged: {what}. Lower the recipe's learning rate, {peak:g}: --set train.lr={peak / 10:g}. "
        "The last good checkpoint, if any, was kept; --restart begins anew where it is of an unfinished run"
    )
