"""The runner of coremltools' own tests: what it chooses, writes down and makes of it. Runs none of those tests."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.conformance import choose, mutate, mutations, plugin, records, run, table
from benchmarks.conformance.records import Reason, Record
from toolkit.mil.ops.types import TensorList

NEURAL = Reason("another format", "not applicable", error="neuralNetwork")
ROUNDING = Reason("rounding", "explained", case=r"test_a\[", error="tolerance")


def record(key: str = "f.py::test_a[1]", outcome: str = "passed", **more: Any) -> Record:
    return Record(key, more.pop("suite", "s"), outcome, **more)


# choosing


def test_keys_are_the_same_in_every_run_and_different_from_each_other():
    first = choose.keys(["t[<function f at 0x7f0000001111>]", "t[<function g at 0x7f0000002222>]", "t[0x]", "u"])
    assert first == choose.keys(["t[<function f at 0x7e0000003333>]", "t[<function g at 0x7e0000004444>]", "t[0x]", "u"])
    assert len(set(first)) == 4


def test_keys_that_differ_in_an_address_alone_are_numbered_in_order():
    assert choose.keys(["t[0x7f0000001111]", "t[0x7f0000002222]"]) == ["t[0x]", "t[0x]#1"]


class Precision(Enum):
    FLOAT16 = 1


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"backend": ("mlprogram", "fp16")}, "fp16"),
        ({"backend": SimpleNamespace(precision="fp32"), "x": 1}, "fp32"),
        ({"compute_precision": Precision.FLOAT16}, "fp16"),
        ({"precision": "fp32"}, "fp32"),
        ({"dtype": "fp16", "pair": ("a", "fp16")}, ""),
        ({}, ""),
    ],
)
def test_the_precision_is_read_off_the_parameters(parameters: dict[str, Any], expected: str):
    assert choose.precision(parameters) == expected


CASES = {f"f.py::test_{name}[{i}]": ("fp16", "fp32")[i % 2] for name in "ab" for i in range(20)} | {"f.py::test_c": ""}


@pytest.mark.parametrize("number", [1, 3, 10])
def test_a_sample_takes_so_many_of_each_function_and_no_fp16_while_there_is_another(number: int):
    chosen = choose.sample(CASES, number, seed=0)
    assert Counter(map(choose.function_of, chosen)) == {"f.py::test_a": number, "f.py::test_b": number, "f.py::test_c": 1}
    assert all(CASES[key] != "fp16" for key in chosen)


def test_a_sample_takes_fp16_when_nothing_else_is_left():
    assert Counter(CASES[key] for key in choose.sample(CASES, 15, seed=0)) == {"fp32": 20, "fp16": 10, "": 1}


def test_a_sample_depends_on_the_seed_alone_and_not_on_other_functions():
    without_b = {key: precision for key, precision in CASES.items() if "test_b" not in key}
    chosen = choose.sample(CASES, 3, seed=0)
    assert chosen == choose.sample(CASES, 3, seed=0)
    assert choose.sample(without_b, 3, seed=0) == [key for key in chosen if "test_b" not in key]
    assert len({tuple(choose.sample(CASES, 3, seed)) for seed in range(5)}) > 1


def test_zero_takes_all_and_the_parts_make_up_the_whole():
    chosen = choose.sample(CASES, 0, seed=0)
    assert chosen == list(CASES)
    parts = [choose.part(chosen, index, 3) for index in range(3)]
    assert sorted(key for each in parts for key in each) == sorted(chosen)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# what a case is


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(comparisons=1), "passed"),
        (record(predictions=1), "nothing compared"),
        (record(outcome="failed", error="neuralNetwork is"), "not applicable"),
        (record(outcome="failed", error="tolerance"), "explained"),
        (record("f.py::test_b", "failed", error="tolerance"), "failed"),
        (record(outcome="crashed"), "failed"),
        (record(outcome="skipped"), "not applicable"),
        (record(outcome="xfailed"), "not applicable"),
        (record(comparisons=1, error="neuralNetwork"), "passed"),  # a reason takes nothing from what passed
    ],
)
def test_the_verdict(given: Record, expected: str):
    assert records.verdict(given, [NEURAL, ROUNDING])[0] == expected


def test_the_shipped_reasons_can_be_read_and_none_covers_just_anything():
    reasons = records.read_reasons()
    assert reasons
    assert not [reason for reason in reasons if reason.covers(record("x.py::y", "failed", error="z"))]


@pytest.mark.parametrize(
    "text",
    [
        'kind = "explained"\nreason = "no pattern"',
        'kind = "because"\nreason = "r"\ncase = "c"',
        'kind = "explained"\nreason = ""\ncase = "c"',
    ],
)
def test_a_reason_without_a_pattern_a_text_or_a_kind_is_refused(tmp_path: Path, text: str):
    (tmp_path / "r.toml").write_text(f"[[reason]]\n{text}\n")
    with pytest.raises(ValueError, match="needs a reason"):
        records.read_reasons(tmp_path / "r.toml")


# results


def test_records_are_read_back_the_last_of_each_case_and_a_torn_line_is_passed_over(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    for each in (record(outcome="failed"), record("k2", ops=["add"], largest=0.5), record(comparisons=2)):
        records.append(path, each)
    with path.open("a") as file:
        file.write('{"key": "torn", "su')
    assert records.read(tmp_path) == {"k2": record("k2", ops=["add"], largest=0.5), "f.py::test_a[1]": record(comparisons=2)}


def test_the_table_counts_each_case_once_and_gives_shares_of_the_applicable():
    found = [record(comparisons=1, precision="fp32")] * 6 + [record(outcome="failed", error="tolerance", precision="fp32")]
    found += [record("b", "failed", precision="fp32"), record("c", precision="fp16"), record("d", "skipped", suite="t")]
    rows = {(row["suite"], row["precision"]): row for row in table.summary(found, [NEURAL, ROUNDING])}
    row = rows["s", "fp32"]
    assert (row["cases"], row["applicable"], row["passed"], row["explained"], row["failed"]) == (8, 8, 6, 1, 1)
    assert (row["passed %"], row["explained %"], row["failed %"]) == (75.0, 12.5, 12.5)
    assert (rows["s", "fp16"]["nothing compared"], rows["s", "fp16"]["passed %"]) == (1, None)
    assert (rows["t", "none"]["not applicable"], rows["all", "all"]["cases"], rows["all", "all"]["applicable"]) == (1, 10, 8)


def test_the_table_is_written_as_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    records.append(tmp_path / "a.jsonl", record(comparisons=1, predictions=3, ops=["add", "relu"], code="0" * 12, precision="fp32"))
    records.append(tmp_path / "a.jsonl", record("f.py::broken", "failed", error="so | so"))
    table.write(tmp_path, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "conformance.json").read_text())
    assert found["failed"] == {"f.py::broken": "so | so"}
    assert (found["predictions"], found["ops"]["in cases that passed"]) == (3, 2)
    text = (tmp_path / "out" / "conformance.md").read_text()
    assert "| s | fp32 | 1 | 1 | 1 | 0 | 0 | 0 | 0 | 100.0 |" in text
    assert "1 cases were decided by another version" in text
    assert "1 of 1 passed" in capsys.readouterr().out


def test_again_keeps_what_passed_and_fresh_keeps_nothing(tmp_path: Path):
    for again, kept in (("failed", {"good"}), ("all", set())):
        for key, outcome in (("good", "passed"), ("bad", "failed"), ("dead", "crashed")):
            records.append(tmp_path / "a.jsonl", record(key, outcome))
        records.append(tmp_path / "a.jsonl", record("another suite's", "failed", suite="other"))
        run.clear(tmp_path, again, [record().suite])
        assert set(records.read(tmp_path)) == kept | {"another suite's"}


# a whole run, on tests of our own

SUITE = """
import os
import numpy as np, pytest
from coremltools._deps import _IS_MACOS
import coremltools.models.utils as utils

@pytest.mark.parametrize("number", range(3))
def test_compares(number):
    assert _IS_MACOS and utils._macos_version() >= (15, 0)
    from coremltools.models import MLModel
    y = MLModel(os.environ["PACKAGE"]).predict({"x": np.full((2, 2), number + 1, np.float32)})["y"]
    np.testing.assert_allclose(y, np.full((2, 2), 2.0 * (number + 1)))

def test_skipped():
    pytest.skip("for a reason")

RUNS = []

def test_mul_once():
    RUNS.append(1)
    test_compares(1)
    assert len(RUNS) == 1

def test_fails():
    raise ValueError("of\\nits own")

def test_dies():
    os._exit(3)
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Any) -> Path:
    """A folder for results; the suite 'own' is the file above."""
    from coremltools.converters.mil import Builder as mb

    (tmp_path / "test_own.py").write_text(SUITE)
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("PACKAGE", str(build(lambda x: mb.mul(x=x, y=np.float32(2), name="y"), (2, 2))))
    monkeypatch.setitem(run.SUITES, "own", (1, ("test_own.py",)))
    monkeypatch.setattr(run, "coremltools_folder", lambda: tmp_path)
    return results


def test_a_run_survives_a_case_that_kills_it_goes_on_after_it_and_notices_a_wrong_op(suite: Path):
    options = run.Options(jobs=1, all_opsets=False)
    job = plugin.Job("own", str(suite))
    run.run_all([job], options)
    found = records.read(suite)
    outcomes = Counter((choose.function_of(key).split("::")[1], each.outcome) for key, each in found.items())
    assert outcomes == {
        ("test_compares", "passed"): 3,
        ("test_mul_once", "passed"): 1,
        ("test_skipped", "skipped"): 1,
        ("test_fails", "failed"): 1,
        ("test_dies", "crashed"): 1,
    }
    compared = [each for each in found.values() if each.outcome == "passed"]
    assert all((each.predictions, each.comparisons, each.precision, each.ops) == (1, 1, "fp32", ["mul"]) for each in compared)
    assert next(each.error for each in found.values() if each.outcome == "failed") == "ValueError: of its own"

    before = (suite / "own-0.jsonl").read_text()
    assert len(before.splitlines()) == 7  # none was run twice

    mutations.run(suite, 2, lambda jobs: run.run_all(jobs, options), {"own": (1, ())})
    mutations.write(suite, suite)
    attempts = {choose.function_of(each["key"]).split("::")[1]: each["outcome"] for each in records.attempts(suite)}
    assert attempts == {"test_mul_once": "unstable", "test_compares": "failed"}
    rows = {row["op"]: row for row in json.loads((suite / "mutations.json").read_text())}
    assert "test_compares" in rows["mul"]["red"]
    assert "Not equal to tolerance" in rows["mul"]["error"]
    assert (rows["add"]["red"], rows["add"]["tried"]) == (None, 0)
    assert (suite / "own-0.jsonl").read_text() == before


# wrong ops


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1.001, -2.002, 0.001])),
        (torch.tensor([1, 2], dtype=torch.int32), torch.tensor([2, 3], dtype=torch.int32)),
        (torch.tensor([True, False]), torch.tensor([False, True])),
        (np.array([1, 2], np.uint8), np.array([2, 3], np.uint8)),
        (np.array([1, 0], np.float32), np.array([1.001, 0.001], np.float32)),
    ],
)
def test_a_wrong_value_keeps_its_type(value: Any, expected: Any):
    wrong = mutate.perturbed(value)
    assert wrong.dtype == expected.dtype
    np.testing.assert_allclose(np.asarray(wrong), np.asarray(expected), rtol=1e-6)


def test_of_a_list_the_items_and_what_is_read_elsewhere_are_wrong():
    wrong = mutate.perturbed(TensorList((None, torch.ones(2)), torch.zeros(2), elements=2))
    assert (wrong.items[0], wrong.elements) == (None, 2)
    np.testing.assert_allclose(wrong.items[1], [1.001, 1.001], rtol=1e-6)
    np.testing.assert_allclose(wrong.blank, [0.001, 0.001], rtol=1e-6)


def test_a_wrong_op_has_the_signature_of_the_right_one_and_is_put_back():
    from toolkit.mil.binding import defaults, parameters
    from toolkit.mil.ops.table import OPS

    right = OPS["relu"]
    with mutate.mutated("relu"):
        wrong = OPS["relu"]
        assert dataclasses.replace(wrong, function=right.function) == right
        assert (parameters(wrong.function), defaults(wrong.function)) == (parameters(right.function), defaults(right.function))
        assert wrong.function(torch.tensor([2.0])).item() == pytest.approx(2.002)
    assert OPS["relu"] is right


def test_an_op_is_more_wrong_for_a_float16_case_which_may_be_off_by_half_a_percent():
    from toolkit.mil.ops.table import OPS

    with mutate.mutated("relu", "fp16"):
        assert OPS["relu"].function(torch.tensor([2.0])).item() == pytest.approx(2.04)


def test_of_an_op_without_results_the_state_is_wrong():
    from toolkit.mil.ops.table import OPS
    from toolkit.mil.ops.types import Cell

    cell = Cell(torch.zeros(1))
    mutate.wrong(OPS["write_state"].function)(cell, torch.ones(1))
    assert cell.value.item() == pytest.approx(1.001)


def test_candidates_are_about_the_op_first_and_of_different_functions_before_the_same_again():
    able: dict[str, Any] = {"comparisons": 1, "precision": "fp32"}
    found = [
        record("f.py::TestAdd::test_x[1]", ops=["add", "mul"], **able),
        record("f.py::TestAdd::test_x[2]", ops=["add"], **able),
        record("f.py::TestOther::test_y[1]", ops=["add"], **able),
        record("f.py::TestAdd::test_z[fp16]", ops=["add"], comparisons=1, precision="fp16"),
        record("f.py::TestAdd::test_fails", "failed", ops=["add"], **able),
        record("f.py::TestAdd::test_compares_nothing", ops=["add"]),
        record("f.py::TestAdd::test_without_it", ops=["mul"], **able),
    ]
    names = [each.key.split("::", 1)[1] for each in mutations.candidates(found, "add", 9)]
    assert names == ["TestAdd::test_x[2]", "TestOther::test_y[1]", "TestAdd::test_z[fp16]", "TestAdd::test_x[1]"]


def test_an_op_that_turned_a_case_red_is_not_tried_again_nor_a_case_that_stayed_green():
    found = [record(f"f.py::test_{name}", ops=["add", "mul"], comparisons=1) for name in "ab"]
    tried = {"add": [{"key": "f.py::test_a", "outcome": "failed"}], "mul": [{"key": "f.py::test_a", "outcome": "passed"}]}
    assert mutations.plan(found, ["add", "mul"], tried, 5) == {"s": {"f.py::test_b": ["mul"]}}


# the command line


def test_a_sample_is_one_case_a_function_in_a_folder_of_its_own():
    sample, full = run.parse(["--sample"]), run.parse([])
    assert (sample.per_function, full.per_function) == (1, 0)
    assert sample.results != full.results
    assert run.parse(["--sample", "--per-function", "3"]).per_function == 3


def test_every_suite_is_in_the_wheel_and_each_job_has_all_parts():
    folder = run.coremltools_folder()
    assert [path for _, paths in run.SUITES.values() for path in paths if not (folder / path).exists()] == []
    jobs = list(run.all_jobs(run.parse(["--suite", "mil-ops", "passes"])))
    assert [(job.suite, job.part, job.parts) for job in jobs] == [("mil-ops", 0, 2), ("mil-ops", 1, 2), ("passes", 0, 1)]


def test_help_can_be_read_without_the_extra():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.conformance.run", "--help"],
        cwd=records.ROOT,
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert "--sample" in done.stdout
