"""Kind 9, of the evaluator: contexts left in another order than they were entered, pickling, numbers of threads that are none."""

import copy
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mil.raw import Name, write
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.limits import thread_count
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.dropin import coremltools_predict

NO_THREADS: tuple[Any, ...] = (0, -1, 10**9, 10**5000, True, "2", 2.5, [2], float("nan"))


def settings() -> tuple[Any, ...]:
    """What the drop-in replaces."""
    from coremltools.models import _compiled_model, model, utils

    return model._MLModelProxy, _compiled_model._MLModelProxy, utils._is_macos, utils._macos_version, model._is_macos


def mode() -> str:
    """That of a model which is loaded now."""
    from coremltools.models import model

    found: str = model._MLModelProxy.mode
    return found


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    op = ("add", {"x": Name("x"), "y": Name("x")}, [("y", "fp32", (2,))])
    return write(tmp_path, [("x", "fp32", (2,))], [op], ["y"])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_contexts_are_left_in_any_order(order: tuple[int, ...]) -> None:
    before = settings()
    modes = ("as-typed", "fp32", "exact")
    stacks = [ExitStack() for _ in modes]
    try:
        for stack, each in zip(stacks, modes, strict=True):
            stack.enter_context(coremltools_predict(each))
            assert mode() == each
        left = []
        for index in order:
            stacks[index].close()
            left.append(index)
            inside = [each for number, each in enumerate(modes) if number not in left]
            assert not inside or mode() == inside[-1]
        assert settings() == before
    finally:
        for stack in stacks:
            stack.close()


def test_contexts_in_threads_are_undone_by_the_last() -> None:
    before = settings()
    gate = threading.Barrier(8)

    def enter() -> None:
        for _ in range(20):
            gate.wait(10)
            with coremltools_predict("exact"):
                assert settings()[2]()  # is_macos

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert settings() == before


def test_an_exception_in_the_inner_one_leaves_the_outer_one() -> None:
    before = settings()
    with coremltools_predict("fp32"):
        with pytest.raises(ZeroDivisionError), coremltools_predict("exact"):
            raise ZeroDivisionError
        assert mode() == "fp32"
    assert settings() == before


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda each: pickle.loads(pickle.dumps(each)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
def test_an_evaluator_is_copied(way: str, doubled: Path) -> None:
    copied = COPIES[way](ReferenceEvaluator(doubled, "exact", threads=1))
    assert (copied.mode, copied.threads) == ("exact", 1)
    assert copied.predict({"x": np.ones(2)})["y"].tolist() == [2, 2]


def test_a_pickled_evaluator_does_not_become_another_model(doubled: Path) -> None:
    pickled = pickle.dumps(ReferenceEvaluator(doubled))
    os.utime(doubled, ns=(1, 1))
    with pytest.raises(ArtifactError, match="was changed after the evaluator was made"):
        pickle.loads(pickled)
    doubled.unlink()
    with pytest.raises(ArtifactError, match="nothing at this path"):
        pickle.loads(pickled)


def test_an_evaluator_goes_to_another_process(doubled: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outputs = pool.apply(ReferenceEvaluator(doubled).predict, ({"x": np.ones(2)},))
    assert outputs["y"].tolist() == [2, 2]


@pytest.mark.parametrize("threads", NO_THREADS, ids=lambda each: f"{each!r:.12}" if not isinstance(each, int) or each < 10**9 else "many")
def test_what_is_no_number_of_threads_is_refused_in_the_same_words(threads: Any, doubled: Path) -> None:
    from toolkit.runtimes import find

    words = r"threads is .*; give a whole number from 1 to \d+, or None"
    for take in (
        lambda: thread_count(threads),
        lambda: ReferenceEvaluator(doubled, threads=threads),
        lambda: find("onnxruntime-cpu").open_file(Path("model.onnx"), threads),
        lambda: find("torch-cpu").open_file(Path("model.pt2"), threads),
    ):
        with pytest.raises(ToolkitError, match=words):
            take()


@pytest.mark.parametrize("threads", ["1000000000", "0", "2.5"])
def test_bench_refuses_such_a_number_of_threads(threads: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from toolkit.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["bench", str(tmp_path / "model.onnx"), "--threads", threads])
    assert ended.value.code == 2
    assert "threads" in "".join(capfd.readouterr())
