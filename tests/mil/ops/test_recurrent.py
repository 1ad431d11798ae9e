"""Recurrent layers against PyTorch's own, and against one step after the other in NumPy, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import recurrent as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
ACTIVATIONS = {
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
}
ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    return {
        "steps": draw(st.integers(1, 4)),
        "batch": draw(st.integers(1, 3)),
        "features": draw(st.integers(1, 3)),
        "size": draw(st.integers(1, 3)),
        "direction": draw(st.sampled_from(["forward", "reverse"])),
        "all": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "rng": np.random.default_rng(draw(st.integers(0, 2**32))),
    }


def arrays(case: dict[str, Any], gates: int, states: int = 1) -> tuple[Array, ...]:
    """x, the states, W_ih, W_hh and a bias (zeros if the case has none)."""
    s, b, i, h, normal = case["steps"], case["batch"], case["features"], case["size"], case["rng"].normal
    bias = normal(size=gates * h) * case["bias"]
    return (
        normal(size=(s, b, i)),
        *(normal(size=(b, h)) for _ in range(states)),
        normal(size=(gates * h, i)),
        normal(size=(gates * h, h)),
        bias,
    )


def torched(*values: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(value) for value in values]


def agree(case: dict[str, Any], results: tuple[torch.Tensor, ...], sequence: list[Array], *states: Array) -> None:
    expected = [np.stack(sequence if case["all"] else sequence[-1:]), *states]
    for result, answer in zip(results, expected, strict=True):
        assert result.shape == answer.shape
        np.testing.assert_allclose(result.numpy(), answer, 1e-10, 1e-12)


def in_order(case: dict[str, Any], x: Array) -> Array:
    return x if case["direction"] == "forward" else x[::-1]


@PROPERTY
@given(case=cases(), activation=ACTIVATION)
def test_rnn_step_by_step(case: dict[str, Any], activation: str) -> None:
    x, h, w_ih, w_hh, bias = arrays(case, 1)
    tensors = torched(x, h, w_ih, w_hh) + (torched(bias) if case["bias"] else [None])
    results = ops.rnn(*tensors, direction=case["direction"], output_sequence=case["all"], activation=activation)
    sequence = []
    for step in in_order(case, x):
        h = ACTIVATIONS[activation](step @ w_ih.T + h @ w_hh.T + bias)
        sequence.append(h)
    agree(case, results, sequence, h)


@PROPERTY
@given(case=cases(), gate=ACTIVATION, activation=ACTIVATION, reset_after=st.booleans(), second_bias=st.booleans())
def test_gru_step_by_step(case: dict[str, Any], gate: str, activation: str, reset_after: bool, second_bias: bool) -> None:
    x, h, w_ih, w_hh, bias = arrays(case, 3)
    other = case["rng"].normal(size=bias.shape) * second_bias
    results = ops.gru(
        *torched(x, h, w_ih, w_hh),
        torch.from_numpy(bias) if case["bias"] else None,
        case["direction"],
        case["all"],
        gate,
        activation,
        reset_after,
        torch.from_numpy(other) if second_bias else None,
    )
    (w_r, w_o, w_z), (r_r, r_o, r_z), (b_r, b_o, b_z), (i_r, i_o, i_z) = (np.split(v, 3) for v in (w_ih, w_hh, bias, other))
    g, a, sequence = ACTIVATIONS[gate], ACTIVATIONS[activation], []
    for step in in_order(case, x):
        z = g(step @ w_z.T + i_z + h @ r_z.T + b_z)
        r = g(step @ w_r.T + i_r + h @ r_r.T + b_r)
        hidden = r * (h @ r_o.T + b_o) if reset_after else (h * r) @ r_o.T + b_o
        h = (1 - z) * a(step @ w_o.T + i_o + hidden) + z * h
        sequence.append(h)
    agree(case, results, sequence, h)


@PROPERTY
@given(
    case=cases(), names=st.tuples(ACTIVATION, ACTIVATION, ACTIVATION), peephole=st.booleans(), clip=st.sampled_from([None, 50.0, 0.2, 0.0])
)
def test_lstm_step_by_step(case: dict[str, Any], names: tuple[str, str, str], peephole: bool, clip: float | None) -> None:
    x, h, c, w_ih, w_hh, bias = arrays(case, 4, 2)
    p = case["rng"].normal(size=3 * case["size"]) * peephole
    results = ops.lstm(
        *torched(x, h, c, w_ih, w_hh),
        bias=torch.from_numpy(bias) if case["bias"] else None,
        peephole=torch.from_numpy(p) if peephole else None,
        direction=case["direction"],
        output_sequence=case["all"],
        recurrent_activation=names[0],
        cell_activation=names[1],
        activation=names[2],
        clip=clip,
    )
    (gate, cell, act), sequence = (ACTIVATIONS[name] for name in names), []
    (p_i, p_f, p_o), limit = np.split(p, 3), np.inf if clip is None else clip
    for step in in_order(case, x):
        i, f, o, z = np.split(step @ w_ih.T + h @ w_hh.T + bias, 4, axis=1)
        c = np.clip(gate(f + p_f * c) * c + gate(i + p_i * c) * cell(z), -limit, limit)
        h = gate(o + p_o * c) * act(c)
        sequence.append(h)
    agree(case, results, sequence, h, c)


@PROPERTY
@given(case=cases(), bidirectional=st.booleans())
def test_lstm_is_that_of_pytorch(case: dict[str, Any], bidirectional: bool) -> None:
    """PyTorch's gates are i, f, z, o; its states [2, b, H] are ours [b, 2H]."""
    size, rng = case["size"], case["rng"]
    layer = torch.nn.LSTM(case["features"], size, bidirectional=bidirectional, dtype=torch.float64)
    x, h, c = torched(
        rng.normal(size=(case["steps"], case["batch"], case["features"])), *rng.normal(size=(2, 1 + bidirectional, case["batch"], size))
    )
    parameters: dict[str, Any] = {}
    for suffix, ours in (("", ""), ("_reverse", "_back"))[: 1 + bidirectional]:
        gates = {n: getattr(layer, f"{n}_l0{suffix}").detach().split(size) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        ifoz = {n: torch.cat([i, f, o, z]) for n, (i, f, z, o) in gates.items()}
        parameters |= {"weight_ih" + ours: ifoz["weight_ih"], "weight_hh" + ours: ifoz["weight_hh"]}
        parameters["bias" + ours] = ifoz["bias_ih"] + ifoz["bias_hh"]
    with torch.no_grad():
        y, (last_h, last_c) = layer(x, (h, c))
    wide = lambda state: torch.cat(list(state), 1)  # noqa: E731
    direction = "bidirectional" if bidirectional else "forward"
    results = ops.lstm(x, wide(h), wide(c), **parameters, direction=direction, output_sequence=True)
    for result, expected in zip(results, (y, wide(last_h), wide(last_c)), strict=True):
        torch.testing.assert_close(result, expected)
    short = ops.lstm(x, wide(h), wide(c), **parameters, direction=direction)
    for result, expected in zip(short, (wide(last_h)[None], wide(last_h), wide(last_c)), strict=True):
        torch.testing.assert_close(result, expected)


@PROPERTY
@given(case=cases())
def test_gru_with_reset_after_is_that_of_pytorch(case: dict[str, Any]) -> None:
    """As in Apple's test of iOS18; PyTorch's gates are r, z, o."""
    size, rng = case["size"], case["rng"]
    layer = torch.nn.GRU(case["features"], size, dtype=torch.float64)
    roz = {name: torch.cat([v.detach().split(size)[i] for i in (0, 2, 1)]) for name, v in layer.named_parameters()}
    x, h = torched(rng.normal(size=(case["steps"], case["batch"], case["features"])), rng.normal(size=(case["batch"], size)))
    with torch.no_grad():
        y, last = layer(x, h[None])
    weights = roz["weight_ih_l0"], roz["weight_hh_l0"], roz["bias_hh_l0"]
    results = ops.gru(x, h, *weights, output_sequence=True, reset_after=True, input_bias=roz["bias_ih_l0"])
    torch.testing.assert_close(results, (y, last[0]))


def test_names_of_activations_may_be_written_in_capitals() -> None:
    arguments = torch.ones(2, 1, 2), torch.ones(1, 3), torch.ones(3, 2), torch.ones(3, 3)
    assert torch.equal(ops.rnn(*arguments, activation="TANH")[1], ops.rnn(*arguments)[1])


def arguments(gates: int, states: int = 1, directions: int = 1) -> dict[str, torch.Tensor]:
    weights = {"weight_ih": torch.ones(gates * 3, 2), "weight_hh": torch.ones(gates * 3, 3), "bias": torch.ones(gates * 3)}
    if directions == 2:
        weights |= {name + "_back": value for name, value in weights.items()}
    return {"x": torch.ones(4, 5, 2)} | {name: torch.ones(5, 3 * directions) for name in ("initial_h", "initial_c")[:states]} | weights


CALLS = [
    (ops.rnn, arguments(1), {}),
    (ops.gru, arguments(3), {}),
    (ops.lstm, arguments(4, 2) | {"peephole": torch.ones(9)}, {}),
    (ops.lstm, arguments(4, 2, 2), {"direction": "bidirectional"}),
]


@pytest.mark.parametrize(("function", "tensors", "parameters"), CALLS)
@pytest.mark.parametrize("output_sequence", [False, True])
def test_meta_tensors_give_the_real_shapes(
    function: Any, tensors: dict[str, Any], parameters: dict[str, Any], output_sequence: bool
) -> None:
    real = function(**tensors, **parameters, output_sequence=output_sequence)
    shapes = [
        each.shape for each in function(**{k: v.to("meta") for k, v in tensors.items()}, **parameters, output_sequence=output_sequence)
    ]
    assert shapes == [each.shape for each in real]
    assert shapes[0][0] == (4 if output_sequence else 1)


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        (0, {"direction": "bidirectional"}, "direction 'bidirectional'"),
        (0, {"activation": "softplus"}, "activation 'softplus'"),
        (0, {"x": torch.ones(0, 5, 2)}, "x has shape"),
        (0, {"x": torch.ones(4, 2)}, "x has shape"),
        (0, {"weight_ih": torch.ones(3, 3)}, "weights"),
        (1, {"weight_hh": torch.ones(9, 2)}, "weights"),
        (1, {"bias": torch.ones(3)}, "bias has shape"),
        (1, {"input_bias": torch.ones(3)}, "bias has shape"),
        (1, {"initial_h": torch.ones(1, 3)}, "initial_h has shape"),
        (2, {"initial_c": torch.ones(5, 4)}, "initial_c has shape"),
        (2, {"peephole": torch.ones(12)}, "peephole has shape"),
        (2, {"clip": -1.0}, "negative"),
        (2, {"direction": "backward"}, "direction 'backward'"),
        (3, {"weight_ih_back": None}, "needs weight_ih_back"),
        (3, {"initial_h": torch.ones(5, 3)}, "initial_h has shape"),
    ],
)
def test_what_does_not_fit_is_refused(call: int, changes: dict[str, Any], message: str) -> None:
    function, tensors, parameters = CALLS[call]
    with pytest.raises(ArtifactError, match=message):
        function(**tensors | parameters | changes)


def test_of_an_lstm_state_with_more_rows_than_sequences_the_first_are_taken() -> None:
    """What coremltools writes for packed sequences, and Apple's tests of them run."""
    function, tensors, parameters = CALLS[2]
    more = {name: torch.cat([tensors[name], torch.full((2, tensors[name].shape[1]), 7.0)]) for name in ("initial_h", "initial_c")}
    for found, wanted in zip(function(**tensors | parameters | more), function(**tensors | parameters), strict=True):
        assert torch.equal(found, wanted)
