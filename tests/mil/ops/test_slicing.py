"""Slices against NumPy's indexing and against lists of indices."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import slicing as ops

Array = Any
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
DTYPES = ("float32", "float64", "int32", "int8", "bool")


@st.composite
def slices(draw: st.DrawFn, squeezing: bool = True) -> tuple[Array, dict[str, Any], Any]:
    """An array, the parameters of a slice of it, and the index that NumPy knows it by."""
    x = np.arange(math.prod(shape := draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))).reshape(shape)
    dtype = draw(st.sampled_from(DTYPES))
    x = x % 3 == 1 if dtype == "bool" else x.astype(dtype)
    begin, end, stride, first, last, squeezed, index = [], [], [], [], [], [], []
    for size in shape:
        begin.append(draw(st.integers(-size - 2, size + 2)))  # beyond the axis too: NumPy clamps
        end.append(draw(st.integers(-size - 2, size + 2)))
        stride.append(draw(st.sampled_from([1, 2, 3, -1, -2])))
        first.append(draw(st.booleans()))
        last.append(draw(st.booleans()))
        squeezed.append(squeezing and draw(st.integers(0, 3)) == 0)
        if squeezed[-1]:
            if not first[-1]:
                begin[-1] = draw(st.integers(-size, size - 1))  # an element must be there
            index.append(0 if first[-1] else begin[-1])
        else:
            index.append(slice(None if first[-1] else begin[-1], None if last[-1] else end[-1], stride[-1]))
    masks = {"begin_mask": tuple(first), "end_mask": tuple(last), "squeeze_mask": tuple(squeezed)}
    return x, {"begin": tuple(begin), "end": tuple(end), "stride": tuple(stride), **masks}, tuple(index)


@PROPERTY
@given(case=slices())
def test_slice_by_index_is_numpys_slice_and_squeezed_its_index(case: Any) -> None:
    x, parameters, index = case
    expected = np.asarray(x[index])
    result = ops.slice_by_index(torch.from_numpy(x), **parameters)
    assert result.numpy().dtype == x.dtype
    assert tuple(result.shape) == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)
    assert ops.slice_by_index(torch.from_numpy(x).to("meta"), **parameters).shape == result.shape


@PROPERTY
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), data=st.data())
def test_without_strides_and_masks_every_index_counts(shape: list[int], data: Any) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    bounds = [sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in shape]
    expected = x[np.ix_(*(range(*each) for each in bounds))]
    begin, end = zip(*bounds, strict=True)
    np.testing.assert_array_equal(ops.slice_by_index(torch.from_numpy(x), begin, end).numpy(), expected)


@PROPERTY
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_slice_by_size_takes_that_many_from_begin_on(shape: list[int], data: Any) -> None:
    x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    begin, size, indices = [], [], []
    for length in shape:
        start = data.draw(st.integers(0, length))
        count = data.draw(st.integers(0, length - start))
        indices.append(range(start, start + count))
        begin.append(start - length if start < length and data.draw(st.booleans()) else start)
        size.append(-1 if start + count == length and data.draw(st.booleans()) else count)
    result = ops.slice_by_size(torch.from_numpy(x), tuple(begin), tuple(size))
    np.testing.assert_array_equal(result.numpy(), x[np.ix_(*indices)])
    assert ops.slice_by_size(torch.from_numpy(x).to("meta"), tuple(begin), tuple(size)).shape == result.shape


@PROPERTY
@given(case=slices())
def test_slice_update_is_numpys_assignment_to_a_copy(case: Any) -> None:
    x, parameters, index = case
    before, expected = x.copy(), x.copy()
    places = np.asarray(expected[index])
    update = np.asarray(~places if x.dtype == bool else -places - 1)
    if update.ndim == 0:
        with pytest.raises(ArtifactError, match="update of shape"):
            ops.slice_update(torch.from_numpy(x), torch.from_numpy(update), **parameters)
        return
    expected[index] = update
    result = ops.slice_update(torch.from_numpy(x), torch.from_numpy(update), **parameters)
    assert result.numpy().dtype == x.dtype
    np.testing.assert_array_equal(result.numpy(), expected)
    np.testing.assert_array_equal(x, before)
    assert ops.slice_update(*(torch.from_numpy(each).to("meta") for each in (x, update)), **parameters).shape == result.shape


X = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("does not fit", lambda: ops.slice_by_index(X, (0,), (1,))),
        ("does not fit", lambda: ops.slice_by_index(X, (0, 0), (1, 1), (1,))),
        ("does not fit", lambda: ops.slice_by_index(X, (0, 0), (1, 1), None, (True,))),
        ("with a 0", lambda: ops.slice_by_index(X, (0, 0), (1, 1), (0, 1))),
        ("element 2 of an axis of 2", lambda: ops.slice_by_index(X, (2, 0), (3, 1), squeeze_mask=(True, False))),
        ("element -3 of an axis of 2", lambda: ops.slice_by_index(X, (-3, 0), (3, 1), squeeze_mask=(True, False))),
        ("rank 2", lambda: ops.slice_by_size(X, (0,), (1,))),
        ("begin 1 and size 2", lambda: ops.slice_by_size(X, (1, 0), (2, 1))),
        ("begin 0 and size -2", lambda: ops.slice_by_size(X, (0, 0), (-2, 1))),
        ("begin -1", lambda: ops.slice_by_size(X, (-3, 0), (1, 1))),
        ("update of shape", lambda: ops.slice_update(X, X[:1], (0, 0), (2, 3))),
        ("update of shape", lambda: ops.slice_update(X, X.T, (0, 0), (2, 3))),
    ],
)
def test_what_does_not_fit_is_refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()
