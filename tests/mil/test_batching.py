"""The batching rules, op by op: where a rule says yes, stacked inputs give what one by one they give; some noes are right.

Every op whose rule can say yes has a case here that says yes.
"""

import functools
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.mil import ReferenceEvaluator, batching
from toolkit.mil.batching import Call, Operand
from toolkit.mil.binding import defaults, parameters
from toolkit.mil.ops.table import OPS

N = 3
RNG = np.random.default_rng(0)
IMAGE = (1, 4, 6, 6)
Shape = tuple[int, ...]


class Batched(tuple[int, ...]):
    """The shape of an operand whose axis 0 becomes N."""


B = Batched
X = B(IMAGE)
CONV = {"weight": (2, 4, 3, 3)}
# op -> (operands by shape, literal parameters) that the rule must allow
LEGAL: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "argsort": [({"x": X}, {"axis": 1})],
    "avg_pool": [({"x": X}, {"kernel_sizes": (2, 2), "pad_type": "same"})],
    "band_part": [({"x": B((1, 4, 5))}, {"lower": 1, "upper": 0})],
    "batch_norm": [({"x": X, "mean": (4,), "variance": (4,)}, {})],
    "cast": [({"x": X}, {"dtype": "int32"})],
    "clamped_relu": [({"x": X}, {"alpha": 0.1, "beta": 0.5})],
    "classify": [({"probabilities": B((1, 3))}, {"classes": ("a", "b", "c")})],
    "clip": [({"x": X}, {"alpha": -0.1, "beta": 0.5, "ios": 15})],
    "concat": [({"values": (X, X)}, {"axis": 1}), ({"values": (X, X)}, {"axis": -1, "interleave": True})],
    "conv": [({"x": X, **CONV}, {})],
    "conv_quantized": [({"x": X, **CONV, "quant_scale": (), "quant_bias": ()}, {"quantization_type": "linear", "nbits": 8})],
    "conv_transpose": [({"x": X, "weight": (4, 2, 3, 3)}, {}), ({"x": X, "weight": (4, 2, 3, 3)}, {"output_shape": (1, 2, 8, 8)})],
    "crop": [({"x": X}, {"crop_height": (1, 0), "crop_width": (0, 2)})],
    "cumsum": [({"x": X}, {"axis": 1, "exclusive": True})],
    "depth_to_space": [({"x": X}, {"block_size": 2})],
    "dequantize": [({"input": X, "scale": ()}, {}), ({"input": X, "scale": (4,)}, {"axis": 1})],
    "einsum": [
        ({"values": (B((1, 2, 3, 4)), B((1, 4, 3, 5)))}, {"equation": "nchw,nwhu->nchu"}),
        ({"values": (B((1, 2, 3)), (3, 2, 4))}, {"equation": "chw,whr->chr"}),
    ],
    "elu": [({"x": X}, {"alpha": 0.5})],
    "expand_dims": [({"x": X}, {"axes": (2, -1)})],
    "flatten2d": [({"x": X}, {"axis": 1})],
    "gather": [
        ({"x": X, "indices": (2,)}, {"axis": 1, "ios": 15}),
        ({"x": (5, 2), "indices": B((1, 4))}, {"axis": 0, "ios": 15}),
    ],
    "gather_along_axis": [({"x": X, "indices": X}, {"axis": 1, "ios": 15})],
    "instance_norm": [({"x": X}, {})],
    "l2_norm": [({"x": X}, {})],
    "l2_pool": [({"x": X}, {"kernel_sizes": (2, 2), "pad_type": "valid"})],
    "layer_norm": [({"x": X}, {"axes": (1, 2)})],
    "leaky_relu": [({"x": X}, {"alpha": 0.1})],
    "linear": [({"x": B((1, 5)), "weight": (2, 5), "bias": (2,)}, {})],
    "linear_activation": [({"x": X}, {"alpha": 0.1, "beta": 2.0})],
    "local_response_norm": [({"x": X}, {"size": 3})],
    "matmul": [
        ({"x": B((1, 3, 4)), "y": B((1, 4, 2))}, {}),
        ({"x": B((1, 3, 4)), "y": (4, 2)}, {}),
        ({"x": (3, 4), "y": B((1, 4, 2))}, {}),
        ({"x": B((1, 4)), "y": (2, 4)}, {"transpose_y": True}),
    ],
    "max_pool": [({"x": X}, {"kernel_sizes": (2, 2), "pad_type": "valid", "strides": (2, 2)})],
    "one_hot": [({"indices": B((1, 4))}, {"one_hot_vector_size": 3}), ({"indices": B((1, 4))}, {"one_hot_vector_size": 3, "axis": 1})],
    "pad": [({"x": X}, {"pad": (1, 2, 0, 1)}), ({"x": X}, {"pad": (0, 0, 0, 0, 1, 1, 1, 1), "mode": "reflect"})],
    "pixel_shuffle": [({"x": X}, {"upscale_factor": 2})],
    "pixel_unshuffle": [({"x": X}, {"downscale_factor": 2})],
    "prelu": [({"x": X, "alpha": (4,)}, {})],
    "quantize": [({"input": X, "scale": ()}, {"output_dtype": "int8"}), ({"input": X, "scale": (4,)}, {"output_dtype": "int8", "axis": 1})],
    "reshape": [({"x": X}, {"shape": (1, 144), "ios": 15}), ({"x": X}, {"shape": (1, 12, -1), "ios": 17})],
    "resize": [({"x": X}, {"shape": (3, 9), "resized_dims": 2})],
    "resize_bilinear": [({"x": X}, {"target_size_height": 3, "target_size_width": 9})],
    "resize_nearest_neighbor": [({"x": X}, {"target_size_height": 3, "target_size_width": 9})],
    "reverse": [({"x": X}, {"axes": (1, -1)})],
    "scaled_dot_product_attention": [
        ({"query": B((1, 2, 3, 4)), "key": B((1, 2, 5, 4)), "value": B((1, 2, 5, 6)), "attn_mask": (3, 5)}, {})
    ],
    "scaled_tanh": [({"x": X}, {"alpha": 0.5, "beta": 2.0})],
    "sigmoid_hard": [({"x": X}, {"alpha": 0.5, "beta": 0.1})],
    "slice_by_index": [
        ({"x": X}, {"begin": (0, 1, 0, 0), "end": (1, 3, 6, 6), "stride": (1, 1, 2, 1)}),
        ({"x": X}, {"begin": (0, 3, 0, 0), "end": (0, 0, 6, 6), "stride": (1, -1, 1, 1), "end_mask": (True, True, False, False)}),
        ({"x": X}, {"begin": (0, 1, 0, 0), "end": (1, 2, 6, 6), "squeeze_mask": (False, True, False, False)}),
    ],
    "slice_by_size": [({"x": X}, {"begin": (0, 1, 0, 2), "size": (1, 2, -1, 3)})],
    "sliding_windows": [({"x": X}, {"axis": 2, "size": 3, "stride": 2})],
    "softmax": [({"x": X}, {"axis": -1})],
    "softplus_parametric": [({"x": X, "alpha": (4,), "beta": (4,)}, {})],
    "space_to_depth": [({"x": X}, {"block_size": 2})],
    "split": [({"x": X}, {"axis": 1, "num_splits": 2}), ({"x": X}, {"axis": -1, "split_sizes": (1, 5)})],
    "squeeze": [({"x": B((1, 1, 5))}, {"axes": (1,)})],
    "stack": [({"values": (X, X)}, {"axis": 2})],
    "thresholded_relu": [({"x": X}, {"alpha": 0.2})],
    "threshold": [({"x": X, "alpha": ()}, {})],
    "tile": [({"x": X}, {"reps": (1, 2, 1, 3)})],
    "topk": [({"x": X}, {"k": 2, "axis": 1})],
    "transpose": [({"x": X}, {"perm": (0, 3, 1, 2)})],
    "upsample_bilinear": [({"x": X}, {"scale_factor_height": 2.0, "scale_factor_width": 1.5, "align_corners": False})],
    "upsample_nearest_neighbor": [({"x": X}, {"scale_factor_height": 2.0, "scale_factor_width": 3.0})],
}  # fmt: skip
for _name, _op in OPS.items():
    _kinds = {name for name, kind in parameters(_op.function).items() if kind is torch.Tensor}
    if _op.batch is batching.axes_of_x and _name.startswith("reduce_"):
        LEGAL[_name] = [({"x": X}, {"axis" if "arg" in _name else "axes": 1 if "arg" in _name else (1, 3), "keep_dims": True})]
    elif _op.batch is batching.broadcast and _name not in LEGAL:
        shared = {"x": (6,), "y": (1, 1, 6, 1), "a": (6,), "b": (1, 4, 1, 1), "cond": (1, 1, 6, 6)}
        first = next(iter(parameters(_op.function)))
        LEGAL[_name] = [({first: X} | {each: shared[each] for each in _kinds - {first}}, {})]
        if len(_kinds) > 1:
            LEGAL[_name].append((dict.fromkeys(_kinds, X), {}))

ILLEGAL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("add", {"x": X, "y": (3, 1, 1, 1)}, {}),
    ("add", {"x": B((1, 4)), "y": (1, 4, 6, 6)}, {}),
    ("conv", {"x": (1, 4, 6, 6), "weight": B((1, 4, 3, 3))}, {}),
    ("softmax", {"x": X}, {"axis": 0}),
    ("softmax", {"x": X}, {"axis": -4}),
    ("reduce_sum", {"x": X}, {}),
    ("squeeze", {"x": B((1, 1, 5))}, {}),
    ("transpose", {"x": X}, {"perm": (1, 0, 2, 3)}),
    ("concat", {"values": (X, X)}, {"axis": 0}),
    ("concat", {"values": (X, (1, 4, 6, 6))}, {"axis": 1}),
    ("matmul", {"x": B((1, 4)), "y": (3, 1)}, {"transpose_x": True}),
    ("matmul", {"x": B((1, 4)), "y": B((1, 4))}, {"transpose_y": True}),
    ("slice_by_index", {"x": X}, {"begin": (0, 0, 0, 0), "end": (1, 4, 6, 6), "squeeze_mask": (True, False, False, False)}),
    ("gather", {"x": X, "indices": (1,)}, {"axis": 0}),
    ("l2_norm", {"x": B((1, 4, 6))}, {}),
    ("local_response_norm", {"x": B((1, 4, 6))}, {"size": 3}),
    ("dequantize", {"input": X, "scale": (1,)}, {"axis": 0}),
    ("tile", {"x": X}, {"reps": (2, 1, 1, 1)}),
    ("pad", {"x": X}, {"pad": (1, 0, 0, 0, 0, 0, 0, 0)}),
    ("one_hot", {"indices": B((1, 4))}, {"one_hot_vector_size": 3, "axis": 0}),
    ("einsum", {"values": ((5, 2, 1), B((1, 2, 4)))}, {"equation": "chw,whr->chr"}),
    ("resize", {"x": X}, {"shape": (1, 4, 3, 3), "resized_dims": 4}),
    ("flatten2d", {"x": X}, {"axis": 2}),
]


def value(op: str, name: str, shape: Shape) -> torch.Tensor:
    if name == "indices":
        return torch.from_numpy(RNG.integers(0, 2, shape))
    if op.startswith("logical") or name == "cond":
        return torch.from_numpy(RNG.integers(0, 2, shape)).bool()
    positive = torch.from_numpy(RNG.uniform(0.1, 0.9, shape))
    return positive.to(torch.int8) + 1 if name == "input" and op == "dequantize" else positive


def call_of(op: str, operands: dict[str, Any], settings: dict[str, Any], outputs: tuple[Shape, ...]) -> Call:
    def operand(shape: Shape) -> Operand:
        return Operand(tuple(shape), isinstance(shape, Batched))

    described = {
        name: tuple(map(operand, shape)) if shape and isinstance(shape[0], tuple) else (operand(shape),) for name, shape in operands.items()
    }
    return Call(described, defaults(OPS[op].function) | settings, outputs)


def test_every_op_that_may_be_batched_has_a_case() -> None:
    assert set(LEGAL) == {name for name, op in OPS.items() if op.batch is not batching.never}


@pytest.mark.parametrize(("op", "number"), [(op, number) for op, cases in LEGAL.items() for number in range(len(cases))])
def test_stacked_equals_one_by_one(op: str, number: int) -> None:
    operands, settings = LEGAL[op][number]
    function = functools.partial(OPS[op].function, **settings)

    def draw(name: str, shape: Shape, index: int | None) -> torch.Tensor:
        return value(op, name, (N, *shape[1:]) if isinstance(shape, Batched) else shape)

    def at(tensor: torch.Tensor, shape: Shape, index: int) -> torch.Tensor:
        return tensor[index : index + 1] if isinstance(shape, Batched) else tensor

    many = {
        name: tuple(draw(name, each, None) for each in shape) if shape and isinstance(shape[0], tuple) else draw(name, shape, None)
        for name, shape in operands.items()
    }
    singles = []
    for index in range(N):
        one = {
            name: tuple(at(t, s, index) for t, s in zip(many[name], shape, strict=True))
            if shape and isinstance(shape[0], tuple)
            else at(many[name], shape, index)
            for name, shape in operands.items()
        }
        result = function(**one)
        singles.append(result if isinstance(result, tuple) else (result,))
    outputs = tuple(tuple(each.shape) for each in singles[0] if isinstance(each, torch.Tensor))
    assert OPS[op].batch(call_of(op, operands, settings, outputs))
    stretch = OPS[op].stretch
    changed = stretch(settings, N, outputs[0]) if stretch else {}
    together = OPS[op].function(**many, **settings | changed)
    for position, result in enumerate(together if isinstance(together, tuple) else (together,)):
        if isinstance(result, torch.Tensor):
            torch.testing.assert_close(result, torch.cat([single[position] for single in singles]), rtol=1e-9, atol=1e-12)
        else:
            assert result == [single[position][0] for single in singles]


@pytest.mark.parametrize("number", range(len(ILLEGAL)))
def test_what_mixes_or_moves_axis_0_is_not_batched(number: int) -> None:
    op, operands, settings = ILLEGAL[number]
    first = next(iter(operands.values()))
    rank = len(first[0] if isinstance(first[0], tuple) else first)
    rank = rank + 1 if op == "one_hot" else rank
    rank = max(rank, *(len(shape) for shape in operands.values())) if op == "add" else rank
    call = call_of(op, operands, settings, ((1,) + (2,) * (rank - 1),))
    assert not OPS[op].batch(call)


def test_a_mask_is_told_from_a_shared_key_by_its_name() -> None:
    """key and mask have the same shape here and neither is batched: only the mask may be shared."""
    shape = (1, 4, 4)
    call = Call({name: (Operand(shape, name == "query"),) for name in ("query", "key", "value", "attn_mask")}, {}, (shape,))
    assert not batching.attention(call)


def test_random_values_are_drawn_for_each_input(build: Any) -> None:
    """Even where no input reaches the op, one draw for a whole stack would be the same for all."""
    from coremltools.converters.mil import Builder as mb

    def program(x: Any) -> Any:
        return mb.add(x=x, y=mb.random_normal(shape=np.array([1, 2], np.int32), mean=0.0, stddev=1.0, seed=-1))

    evaluator = ReferenceEvaluator(build(program, (1, 2)))
    assert "random_normal" in str(evaluator.why_not_batched)
    (rows,) = evaluator.predict_array(np.zeros((3, 2))).values()
    assert len(np.unique(rows)) == 6
