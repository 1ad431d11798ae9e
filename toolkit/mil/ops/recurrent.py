"""Recurrent layers over x [s, b, I]: s time steps, b sequences, I features. T is fp32; from iOS17 also fp16.

Results: every step's hidden state [s, b, H] (or [1, b, H], the last one's, without output_sequence) and the last one's
[b, H]. `reverse` reads the steps from the last to the first and writes them in that order (Apple's tests). Gates are
computed without rounding in between: the program declares no type there.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.limits import PER_KERNEL, current
from toolkit.mil.ops.types import Tensor

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "linear": lambda x: x,
    "relu": torch.relu,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "tanh": torch.tanh,
}  # scaled_tanh, hard_sigmoid and linear with the constants of Apple's tests


def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """h = activation(W_ih x + W_hh h + bias); weights [H, I] and [H, H]. iOS15|17/recurrent.py"""
    _check(x, weight_ih, weight_hh, bias, 1)
    _state("initial_h", initial_h, x, weight_hh.shape[1])
    act, h, steps = _activation(activation), initial_h, []
    for given in _time(F.linear(x, weight_ih, bias), _reversed(direction)):
        h = act(given + F.linear(h, weight_hh))
        steps.append(h)
    return _sequence(steps, output_sequence), h


def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent unit; weights [3H, I] and [3H, H], biases [3H], all in the order r, o, z. iOS15|17|18/recurrent.py

    r, z = recurrent_activation(W_i x + b_i + W_h h + b), h = (1 - z) · o + z · h, and o = activation(W_io x + b_io +
    W_ho (r · h) + b_o): so in Apple's tests, the definition writes r · W_ho h. iOS18's reset_after: r · (W_ho h + b_o),
    as in PyTorch, with bias on the hidden and input_bias on the input side.
    """
    _check(x, weight_ih, weight_hh, bias, 3)
    _check(x, weight_ih, weight_hh, input_bias, 3)
    size = weight_hh.shape[1]
    _state("initial_h", initial_h, x, size)
    gate, act = _activation(recurrent_activation), _activation(activation)
    w_r, w_o, w_z = weight_hh.split(size)
    b_r, b_o, b_z = (None,) * 3 if bias is None else bias.split(size)
    h, steps = initial_h, []
    for given in _time(F.linear(x, weight_ih, input_bias), _reversed(direction)):
        x_r, x_o, x_z = given.split(size, dim=1)
        r = gate(x_r + F.linear(h, w_r, b_r))
        z = gate(x_z + F.linear(h, w_z, b_z))
        o = act(x_o + (r * F.linear(h, w_o, b_o) if reset_after else F.linear(r * h, w_o, b_o)))
        h = (1 - z) * o + z * h
        steps.append(h)
    return _sequence(steps, output_sequence), h


def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory; weights [4H, I] and [4H, H], bias [4H] in the order i, f, o, z. iOS15|17/recurrent.py

    i, f = recurrent_activation(W x + W_h h + b + p · c), z = cell_activation(W x + W_h h + b), c = f · c + i · z, c cut
    off at ±clip, o = recurrent_activation(W x + W_h h + b + p_o · c), h = o · activation(c); peephole p is [i, f, o].
    bidirectional: the *_back weights read from the last step to the first; states [b, 2H] and results [forward, back],
    both in the order of time. Third result: the last c. A state of more rows than x has sequences gives its first ones:
    the definition asks for as many, coremltools writes more for packed sequences, and Apple's tests of those pass.
    """
    initial_h, initial_c = initial_h[: x.shape[1]], initial_c[: x.shape[1]]
    activations = _activation(recurrent_activation), _activation(cell_activation), _activation(activation)
    forward = weight_ih, weight_hh, bias, peephole
    if direction != "bidirectional":
        return _lstm(x, initial_h, initial_c, forward, _reversed(direction), output_sequence, activations, clip)
    if weight_ih_back is None or weight_hh_back is None:
        raise ArtifactError("direction bidirectional needs weight_ih_back and weight_hh_back")
    back = weight_ih_back, weight_hh_back, bias_back, peephole_back
    size = weight_hh.shape[1]
    _state("initial_h", initial_h, x, 2 * size)
    _state("initial_c", initial_c, x, 2 * size)
    (h_f, h_b), (c_f, c_b) = initial_h.split(size, dim=1), initial_c.split(size, dim=1)
    y_f, h_f, c_f = _lstm(x, h_f, c_f, forward, False, output_sequence, activations, clip)
    y_b, h_b, c_b = _lstm(x, h_b, c_b, back, True, output_sequence, activations, clip)
    return torch.cat([y_f, y_b.flip(0)], 2), torch.cat([h_f, h_b], 1), torch.cat([c_f, c_b], 1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    backwards: bool,
    output_sequence: bool,
    activations: tuple[Callable[[Tensor], Tensor], ...],
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    weight_ih, weight_hh, bias, peephole = weights
    _check(x, weight_ih, weight_hh, bias, 4)
    size = weight_hh.shape[1]
    _state("initial_h", h, x, size)
    _state("initial_c", c, x, size)
    if peephole is not None and tuple(peephole.shape) != (3 * size,):
        raise ArtifactError(f"peephole has shape {list(peephole.shape)}, not [{3 * size}]")
    if clip is not None and clip < 0:
        raise ArtifactError(f"clip {clip} is negative")
    gate, cell, act = activations
    steps = []
    for given in _time(F.linear(x, weight_ih, bias), backwards):
        i, f, o, z = (given + F.linear(h, weight_hh)).split(size, dim=1)
        if peephole is not None:
            p_i, p_f, p_o = peephole.split(size)
            i, f = i + p_i * c, f + p_f * c
        c = gate(f) * c + gate(i) * cell(z)
        c = c if clip is None else c.clamp(-clip, clip)
        h = gate(o if peephole is None else o + p_o * c) * act(c)
        steps.append(h)
    return _sequence(steps, output_sequence), h, c


def _time(given: Tensor, backwards: bool) -> tuple[Tensor, ...]:
    current().check(PER_KERNEL * len(given))  # before there is a tensor for each
    steps = given.unbind(0)
    return steps[::-1] if backwards else steps


def _reversed(direction: str) -> bool:
    if direction not in ("forward", "reverse"):
        raise ArtifactError(f"direction {direction!r} is not one of the definition's")
    return direction == "reverse"


def _sequence(steps: list[Tensor], all_of_them: bool) -> Tensor:
    return torch.stack(steps if all_of_them else steps[-1:])


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name.lower() not in _ACTIVATIONS:
        raise ArtifactError(f"activation {name!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name.lower()]


def _check(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None, gates: int) -> None:
    if x.ndim != 3 or x.shape[0] < 1:
        raise ArtifactError(f"x has shape {list(x.shape)}, not [steps, sequences, features]")
    size = weight_hh.shape[-1]
    expected = (gates * size, x.shape[2]), (gates * size, size)
    if (tuple(weight_ih.shape), tuple(weight_hh.shape)) != expected:
        raise ArtifactError(f"weights {list(weight_ih.shape)} and {list(weight_hh.shape)}, expected {expected}")
    if bias is not None and tuple(bias.shape) != (gates * size,):
        raise ArtifactError(f"bias has shape {list(bias.shape)}, not [{gates * size}]")


def _state(name: str, state: Tensor, x: Tensor, size: int) -> None:
    if x.ndim != 3 or tuple(state.shape) != (x.shape[1], size):
        raise ArtifactError(f"{name} has shape {list(state.shape)}, x {list(x.shape)}: expected [sequences, {size}]")
