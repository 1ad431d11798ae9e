"""`toolkit bench` from the command line to its exit code, with real workers where a stand-in would hide the fault."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.bench.conftest import round_of
from toolkit.bench.plan import PRESETS
from toolkit.cli import main

SECOND = 10**9
QUICK = PRESETS["quick"]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick look of one round and few calls: what is asked here is whether it runs."""
    monkeypatch.setitem(PRESETS, "quick", replace(QUICK, rounds=1, calls=5, seconds=0.05))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def onnx_file(path: Path, op: str, inputs: dict[str, tuple[int, list[Any]]], *constants: Any, **attributes: Any) -> Path:
    """A graph of one op; a constant is called c0, c1 …"""
    names = [*(f"c{place}" for place in range(len(constants))), *inputs]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["out"], **attributes)], "one",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(each, f"c{place}") for place, each in enumerate(constants)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


TABLE = np.ones((10, 4), np.float32)


class Lookup(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Two(torch.nn.Module):
    def forward(self) -> torch.Tensor:
        return torch.full((3,), 2.0)


def program(path: Path, model: torch.nn.Module, *inputs: torch.Tensor) -> Path:
    torch.export.save(torch.export.export(model.eval(), inputs), path)
    return path


def scripted(path: Path, model: torch.nn.Module) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model.eval()), str(path))
    return path


IDS = torch.zeros(2, 3, dtype=torch.long)
FOREIGN = {
    "another name": lambda at: (onnx_file(at / "a.onnx", "Relu", {"x": (TensorProto.FLOAT, ["N", 3])}), []),
    "whole numbers": lambda at: (onnx_file(at / "a.onnx", "Gather", {"ids": (TensorProto.INT64, [1, "S"])}, TABLE), []),
    "two": lambda at: (onnx_file(at / "a.onnx", "Add", {"x": (TensorProto.FLOAT, [2, 3]), "y": (TensorProto.FLOAT, [2, 3])}), []),
    "none": lambda at: (onnx_file(at / "a.onnx", "RandomNormal", {}, shape=[3]), []),
    "program, whole numbers": lambda at: (program(at / "a.pt2", Lookup(), IDS), []),
    "program, two": lambda at: (program(at / "a.pt2", Sum(), torch.zeros(2, 3), torch.zeros(2, 3)), []),
    "program, none": lambda at: (program(at / "a.pt2", Two()), []),
    "TorchScript, two": lambda at: (scripted(at / "a.pt", Sum()), ["--shape", "x=2x3", "--shape", "y=2x3"]),
    "TorchScript, whole numbers": lambda at: (scripted(at / "a.pt", Lookup()), ["--shape", "ids=2x3:int64"]),
    "TorchScript, none": lambda at: (scripted(at / "a.pt", Two()), []),
}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_from_elsewhere_is_timed_whatever_its_inputs_are(capsys, tmp_path: Path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, words = FOREIGN[name](tmp_path)
    code, out, err = run(
        capsys,
        str(path),
        "--quick",
        "--json",
        "--runtime",
        "torch-cpu" if path.suffix != ".onnx" else "onnxruntime-cpu",
        *words,
        *(["--trust"] if path.suffix == ".pt" else []),
    )
    (arm,) = json.loads(out)["arms"]
    assert (code, arm["error"]) == (0, None), err
    # an axis 0 that the file has fixed at 2 may be anything
    assert (arm["figures"]["images_per_s"] is None) == (name.endswith("none") or name in ("two", "program, two", "program, whole numbers"))


@pytest.mark.usefixtures("brief")
def test_where_every_arm_fails_there_are_rows_a_file_and_exit_1(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("damaged.onnx").write_bytes(b"no model at all")
    code, out, _ = run(capsys, "damaged.onnx", "--quick")
    assert code == 1
    assert "FAILED" in out
    assert "failed: damaged.onnx:onnxruntime-cpu: onnxruntime does not load" in " ".join(out.split())
    assert "onnxruntime does not load" in json.loads(Path("damaged.onnx-bench.json").read_text())["arms"][0]["error"]


def steady(job: Any, call_ns: int = 10_000_000, **fields: Any) -> Any:
    return round_of([call_ns] * 300, max(0, job.number), wall_ns=3 * SECOND, **fields)


def test_a_lone_arm_that_is_killed_keeps_its_earlier_rounds(capsys, exported_copy, in_process):
    in_process(lambda job: "was killed by SIGKILL" if job.number == 3 else steady(job))
    code, out, _ = run(capsys, str(exported_copy.folder), "--runtime", "torch-cpu", "--json")
    arms = json.loads(out)["arms"]
    assert (code, {arm["error"] for arm in arms}) == (1, {"was killed by SIGKILL"})
    assert {len(arm["rounds"]) for arm in arms} == {3}


def test_outputs_that_were_wrong_while_it_was_timed_are_exit_1(capsys, exported_copy, in_process):
    in_process(lambda job: steady(job, max_abs_logit=1.0))
    code, out, _ = run(capsys, str(exported_copy.folder), "--runtime", "torch-cpu")
    assert (code, "INVALID" in out) == (1, True)


def test_a_gate_that_decided_nothing_is_an_error_with_its_reasons(capsys, exported_copy, in_process):
    """One clock jumps, so that no row is valid."""
    from tests.bench.conftest import turn_of

    in_process(lambda job: steady(job, turns=[turn_of(300, 3 * SECOND, wall_ns=6 * SECOND)]))
    words = (str(exported_copy.folder), "--runtime", "torch-cpu", "--runtime", "onnxruntime-cpu", "--fail-if-slower")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "--fail-if-slower: there is no verdict on onnx-fp32:onnxruntime-cpu: it is INVALID (clocks agree)" in err
    in_process(lambda job: steady(job))
    assert run(capsys, *words)[0] == 0
    in_process(lambda job: steady(job, 20_000_000 if job.runtime == "onnxruntime-cpu" else 10_000_000))
    assert run(capsys, *words)[0] == 1


def test_a_gate_with_nothing_to_compare_is_refused_before_anything_is_measured(capsys, exported_copy, in_process):
    jobs = in_process(steady)
    code, _, err = run(capsys, str(exported_copy.folder), "--runtime", "torch-cpu", "--fail-if-slower")
    assert (code, jobs) == (2, [])
    assert "nothing to compare" in err


@pytest.mark.parametrize(("then", "words"), [("onnxruntime-cpu", "none of the arms"), ("torch-cpu", "were not valid")])
def test_an_earlier_measurement_without_a_sound_arm_of_now_is_refused(capsys, exported_copy, in_process, tmp_path, then, words):
    in_process(lambda job: steady(job, max_abs_logit=1.0 if then == "torch-cpu" else 0.0))
    run(capsys, str(exported_copy.folder), "--runtime", then)
    before = (exported_copy.reports / "bench.json").rename(tmp_path / "before.json")
    jobs = in_process(steady)
    code, _, err = run(capsys, str(exported_copy.folder), "--runtime", "torch-cpu", "--against", str(before))
    assert (code, jobs) == (2, [])
    assert words in err
    assert "torch:torch-cpu" in err


def test_arms_that_an_earlier_measurement_lacks_are_listed_and_reading_again_says_the_same(capsys, exported_copy, in_process, tmp_path):
    both = ("--runtime", "torch-cpu", "--runtime", "onnxruntime-cpu")
    in_process(steady)
    run(capsys, str(exported_copy.folder), *both[:2])
    before = (exported_copy.reports / "bench.json").rename(tmp_path / "before.json")
    in_process(lambda job: steady(job, 20_000_000))
    code, out, _ = run(capsys, str(exported_copy.folder), *both, "--against", str(before), "--fail-if-slower")
    text = " ".join(out.split())
    assert code == 1
    assert "not compared: onnx-fp32:onnxruntime-cpu: it is not in before.json" in text
    assert "Welch" in text
    before.unlink()
    with pytest.raises(SystemExit):
        main(["report", str(exported_copy.reports / "bench.json")])
    assert " ".join(capsys.readouterr().out.split()) == text


@pytest.mark.parametrize(("words", "message"), [
    (["--quick", "--against", "x.json"], "--against needs verdicts"), (["--batch", "8", "--batch", "8"], "--batch 8 is given twice"),
    (["--threads", "1", "--threads", "1"], "--threads 1 is given twice"), (["--scenario", "paced", "--hz", "0.001"], "--hz 0.001: between"),
    (["--threads", "2", "--runtime", "null"], "null: it takes no number of threads"),
])  # fmt: skip
def test_what_decides_nothing_is_refused(capsys, exported_copy, words, message):
    code, _, err = run(capsys, str(exported_copy.folder), *words)
    assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("name", ["x.tflite", "x.mlmodel", "x.pth", "x"])
def test_a_file_that_is_no_model_that_we_know_is_told_so(capsys, tmp_path: Path, name):
    (tmp_path / name).write_bytes(b"abc")
    code, _, err = run(capsys, str(tmp_path / name))
    assert (code, "is no model file that can be timed; there are .onnx, .mlpackage" in err) == (2, True), err


def test_a_shape_says_the_batch_as_well(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = onnx_file(tmp_path / "a.onnx", "Relu", {"x": (TensorProto.FLOAT, ["N", 3])})
    code, _, err = run(capsys, str(path), "--batch", "8", "--shape", "x=1x3")
    assert (code, "--shape says the batch size too" in err) == (2, True), err


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("shape", "words", "batch", "error"), [
    ([16, 3], ["--batch", "16"], 16, None), (["N", 3], ["--batch", "4"], 4, None), (["N", 3], ["--shape", "x=6x3"], 6, None),
    ([1, "S"], ["--batch", "8"], 8, "the batch size is baked in (x 1×1)"),
    ([1, 3], ["--scenario", "offline"], 64, "the batch size is baked in (x 1×3): give --batch 1"),
])  # fmt: skip
def test_images_are_counted_in_the_array_that_was_made(capsys, tmp_path: Path, monkeypatch, shape, words, batch, error):
    monkeypatch.chdir(tmp_path)
    path = onnx_file(tmp_path / "a.onnx", "Relu", {"x": (TensorProto.FLOAT, shape)})
    code, out, _ = run(capsys, str(path), "--quick", "--json", *words)
    (arm,) = json.loads(out)["arms"]
    assert (code, arm["batch"], arm["error"] is None) == (1 if error else 0, batch, error is None)
    if error is None:
        calls, wall_ns = sum(len(each["samples_ns"]) for each in arm["rounds"]), sum(each["wall_ns"] for each in arm["rounds"])
        assert arm["figures"]["images_per_s"] == pytest.approx(batch * calls / wall_ns * 1e9)
    else:
        assert error in arm["error"]


class Half(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Pair(torch.nn.Module):
    def forward(self, pair: dict[str, torch.Tensor]) -> torch.Tensor:
        return pair["a"] + pair["b"]


STRANGE = {
    "is bfloat16": lambda at: program(at / "a.pt2", Half(), torch.zeros(1, 3, dtype=torch.bfloat16)),
    "does not run on what was made up (pair_a 1×4 float32, pair_b 1×4 float32)": lambda at: program(
        at / "a.pt2", Pair(), {"a": torch.ones(1, 4), "b": torch.ones(1, 4)}
    ),
    "--shape x=": lambda at: onnx_file(
        at / "a.onnx", "Conv", {"x": (TensorProto.FLOAT, ["N", 3, "H", "W"]), "w": (TensorProto.FLOAT, [2, 3, 5, 5])}
    ),
}  # fmt: skip


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("words", STRANGE)
def test_what_cannot_be_made_up_is_one_message_that_says_what_to_do(capsys, tmp_path: Path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    path = STRANGE[words](tmp_path)
    code, out, _ = run(capsys, str(path), "--quick", "--json", "--runtime", "torch-cpu" if path.suffix == ".pt2" else "onnxruntime-cpu")
    error = json.loads(out)["arms"][0]["error"]
    assert (code, words in error, "Error:" in error.split(":")[0]) == (1, True, False), error


def test_nothing_replaces_a_better_measurement(capsys, exported_copy, in_process):
    """Neither a quick look, nor another scenario, nor Ctrl-C before the first round."""
    ask = (str(exported_copy.folder), "--runtime", "torch-cpu")
    in_process(steady)
    run(capsys, *ask, "--publish")
    best = (exported_copy.reports / "bench.json").read_bytes()
    _, _, err = run(capsys, *ask, "--quick")
    assert "bench-quick.json" in err
    run(capsys, *ask, "--scenario", "cold")

    def stopped(job: Any) -> Any:
        raise KeyboardInterrupt

    in_process(stopped)
    assert run(capsys, *ask, "--publish")[0] == 130
    assert (exported_copy.reports / "bench.json").read_bytes() == best
    stored = {path.name: json.loads(path.read_text())["preset"] for path in exported_copy.reports.glob("bench*.json")}
    assert stored == {"bench.json": "publish", "bench-quick.json": "quick", "bench-cold.json": "default"}


@pytest.mark.parametrize("damage", [lambda text: text[:100], lambda text: text.replace('"schema_version": 3', '"schema_version": 4')])
def test_what_cannot_be_read_is_not_replaced(capsys, exported_copy, in_process, damage):
    ask = (str(exported_copy.folder), "--runtime", "torch-cpu")
    in_process(steady)
    run(capsys, *ask)
    path = exported_copy.reports / "bench.json"
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    for name in ("bench-default.json", "bench-default-2.json"):
        _, _, err = run(capsys, *ask)
        other = exported_copy.reports / name
        assert path.read_bytes() == before
        assert f"{name}" in err
        assert json.loads(other.read_text())["preset"] == "default"
        other.write_text("damaged as well")


def test_ctrl_c_does_not_replace_what_is_complete(capsys, exported_copy, in_process):
    ask = (str(exported_copy.folder), "--runtime", "torch-cpu", "--publish")

    def stopped(job: Any) -> Any:
        if job.number == 1:
            raise KeyboardInterrupt
        return steady(job)

    in_process(steady)
    run(capsys, *ask)
    whole = (exported_copy.reports / "bench.json").read_bytes()
    in_process(stopped)
    for _ in range(2):
        code, _, err = run(capsys, *ask)
        assert (code, "bench-interrupted.json" in err) == (130, True)
    assert (exported_copy.reports / "bench.json").read_bytes() == whole
    kept = json.loads((exported_copy.reports / "bench-interrupted.json").read_text())
    assert (kept["interrupted"], len(kept["arms"][0]["rounds"])) == (True, 1)
    assert len(list(exported_copy.reports.glob("bench*.json"))) == 2


def test_what_is_compared_with_is_not_replaced(capsys, exported_copy, in_process, tmp_path: Path, monkeypatch):
    in_process(steady)
    ask = (str(exported_copy.folder), "--runtime", "torch-cpu")
    run(capsys, *ask)
    path = exported_copy.reports / "bench.json"
    before = path.read_bytes()
    _, _, err = run(capsys, *ask, "--against", str(path))
    assert "it is what is compared with" in err
    assert path.read_bytes() == before
    assert json.loads((exported_copy.reports / "bench-default.json").read_text())["against"]["file"] == "bench.json"
    monkeypatch.chdir(tmp_path)
    file, out = onnx_file(tmp_path / "a.onnx", "Relu", {"x": (TensorProto.FLOAT, ["N", 3])}), tmp_path / "mine.json"
    run(capsys, str(file), "--out", str(out))
    before = out.read_bytes()
    run(capsys, str(file), "--out", str(out), "--against", "mine.json")
    assert out.read_bytes() == before
    assert (tmp_path / "mine-default.json").exists()


def test_an_output_place_that_cannot_be_written_is_found_before_anything_is_measured(capsys, tmp_path: Path, in_process):
    jobs = in_process(steady)
    path = onnx_file(tmp_path / "a.onnx", "Relu", {"x": (TensorProto.FLOAT, ["N", 3])})
    (tmp_path / "file").touch()
    for out, named in ((tmp_path, tmp_path), (tmp_path / "file/x.json", tmp_path / "file")):
        code, _, err = run(capsys, str(path), "--out", str(out))
        assert (code, jobs) == (2, [])
        assert f"cannot write to {named}" in err
