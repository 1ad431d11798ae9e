"""Mixed precision tried on the evaluator is what the converter writes: in fp32 what is kept, fp16 everything that it is handed to."""

import numpy as np
import pytest

from toolkit.mil import ReferenceEvaluator

X = np.array([[300.0, -2.0, 0.1]], np.float32)


@pytest.fixture(scope="module")
def path(build):
    """fp16: square (90,000 overflows), times 1/1024, times 4."""
    from coremltools.converters.mil import Builder as mb

    def body(x):
        small = mb.mul(x=mb.square(x=x, name="square"), y=np.float16(2.0**-10), name="small")
        return mb.mul(x=small, y=np.float16(4.0), name="result")

    return build(body, X.shape, dtype="fp16")


def predict(path, *keep: str):
    return ReferenceEvaluator(path, keep_fp32=frozenset(keep)).predict({"x": X}, intermediates=True)


def test_what_overflows_is_finite_where_it_and_its_reader_are_kept(path):
    assert predict(path)["result"][0, 0] == np.inf
    assert predict(path, "square")["result"][0, 0] == np.inf  # its reader is in fp16, and is handed fp16
    found = predict(path, "square", "small")
    assert found["square"][0, 0] == np.inf  # shown in the type that the program declares
    assert found["result"][0, 0] == np.float16(90_000 / 256)


def test_an_op_that_is_kept_does_not_round(path):
    """0.1 is rounded on the way in; its square is not, where it is kept."""
    own = np.float32(np.float16(0.1)) ** 2
    kept = predict(path, "square", "small", "result")["result"][0, 2]
    assert kept == pytest.approx(float(own) / 256, rel=1e-3)
    evaluator = ReferenceEvaluator(path, keep_fp32=frozenset({"square", "small", "result"}))
    assert evaluator.predict_array(X)["result"][0, 2] == np.float32(own) / 256
    assert ReferenceEvaluator(path).predict_array(X)["result"][0, 2] != np.float32(own) / 256


def test_what_may_be_kept_and_who_reads_it_is_known(path):
    evaluator = ReferenceEvaluator(path)
    assert evaluator.rounded == ("square", "small", "result")
    assert {name: evaluator.readers[name] for name in ("x", "square", "small", "result")} == {
        "x": ("square",), "square": ("small",), "small": ("result",), "result": (),
    }  # fmt: skip


def test_a_value_that_is_not_there_is_refused(path):
    with pytest.raises(ValueError, match="the program computes no cube"):
        ReferenceEvaluator(path, keep_fp32=frozenset({"cube"}))


def test_intermediates_of_many_images_are_stacked(path):
    evaluator = ReferenceEvaluator(path, mode="fp32")
    images = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = evaluator.predict_array(images, batch_size=3, intermediates=["square"])
    assert set(found) == {"square", "result"}
    np.testing.assert_array_equal(found["square"], images**2)
