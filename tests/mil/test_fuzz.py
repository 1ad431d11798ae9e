"""The fuzzer's verdicts: a refusal that came only when memory ran out is a finding, not a refusal."""

from pathlib import Path

import pytest

from benchmarks import fuzz
from toolkit.errors import ArtifactError


@pytest.mark.parametrize("seed", range(3))
def test_want_of_memory_is_a_finding(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(message: str) -> None:
        def evaluator(*_: object) -> None:
            raise ArtifactError(message)

        monkeypatch.setattr("toolkit.mil.evaluator.ReferenceEvaluator", evaluator)

    fails("op 3 (tile -> y): 2000000000 elements alive, more than 1073741824")
    assert fuzz.run_one(Path("x"), seed) == "refused"
    fails("op 3 (tile -> y): RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …")
    with pytest.raises(ArtifactError, match="allocate memory"):
        fuzz.run_one(Path("x"), seed)


def test_every_way_to_run_is_tried(packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a few seeds: predict, predict with intermediates, predict_array."""
    from toolkit.mil import ReferenceEvaluator

    called = set()
    predict, predict_array = ReferenceEvaluator.predict, ReferenceEvaluator.predict_array

    def watched(self: ReferenceEvaluator, *args: object, **kwargs: object) -> object:
        called.add(f"predict {kwargs['intermediates']}")
        return predict(self, *args, **kwargs)  # type: ignore[call-overload]

    def watched_array(self: ReferenceEvaluator, *args: object) -> object:
        called.add("predict_array")
        return predict_array(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ReferenceEvaluator, "predict", watched)
    monkeypatch.setattr(ReferenceEvaluator, "predict_array", watched_array)
    for seed in range(12):
        assert fuzz.run_one(packages["FLOAT16-image"], seed) == "answer"
    assert called == {"predict False", "predict True", "predict_array"}
