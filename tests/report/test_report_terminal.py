"""The terminal: nothing is cut, nothing that was not run looks passed, and JSON is JSON."""

import importlib
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from toolkit.doctor import Diagnosis, Problem, RuntimeState
from toolkit.export import ExportResult
from toolkit.inspection import Facts
from toolkit.predict import Prediction, PredictResult
from toolkit.report import ReportResult, latency, tables, terminal
from toolkit.training import SeedsResult, TrainResult
from toolkit.training.readiness import OperatorUse, Readiness

LONG = "a-very-long-name-of-an-artifact-that-is-longer-than-a-line-of-eighty-columns-and-must-not-be-cut"
DIAGNOSIS = Diagnosis(
    {"processor": "Test 9000", "torch": "2.9.9"},
    [RuntimeState("torch-cpu", "2.9.9", True, None), RuntimeState("coreml-ane", None, True, f"needs macOS {LONG}")],
    [Problem("numpy 2.4 with coremltools 9.0", "pip install 'numpy<2.4'")],
)
MEASURED = {"train_loss": 0.1234, "train_accuracy": 0.9, "test_accuracy": 0.9958, "test_correct": 9958, "test_images": 10_000}
RESULTS = [
    TrainResult(Path("m/checkpoint"), True, MEASURED, {"data": 0.2, "training": 61.5}),
    TrainResult(Path("m/checkpoint"), False, {"train_loss": 0.5, "train_accuracy": 0.75}),
    SeedsResult(Path("m/checkpoint"), True, {"3": MEASURED, "4": {**MEASURED, "test_correct": 9960}}, 0.9959, 0.0001),
    Readiness(
        "tiny",
        "2.9.9",
        [
            OperatorUse("training", "aten::mm", 2, ("float32",), None),
            OperatorUse("training", "aten::convolution", 2, ("float32",), None, composite=True),
            OperatorUse("inference", "aten::geqrf", 1, ("float64",), "MPS has no float64"),
        ],
    ),
    [ExportResult(Path(f"m/exports/{LONG}"), "coreml", "fp16", 22_380_000, 0.00321, ["made by route torch.export"], 12.5)],
    [ExportResult(Path("m/exports/coreai-fp32"), "coreai", "fp32", 1, None, [], 1.0)],
    ReportResult(Path("m/reports/report.html"), Path("m/reports/report.md")),
    PredictResult("tiny", "torch", "torch-cpu", [Prediction(Path("[red]7.png"), True, [("7", 0.98), ("[b]1", 0.01), ("9", 0.01)])]),
    Facts("checkpoint of tiny", {"sha256": "0123456789abcdef" * 4, "notes": "; ".join([LONG] * 3)}),
    DIAGNOSIS,
]


def printed(result, capsys, as_json: bool = False) -> str:
    terminal.show(result, as_json)
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


def cells(result) -> list[str]:
    """Every piece of text the renderer hands over."""
    found = []
    for part in terminal.parts(result):
        found += [part] if isinstance(part, str) else [part.caption, *part.columns, *(cell for row in part.rows for cell in row)]
    return found


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_nothing_is_cut_when_the_output_is_no_terminal(result, capsys):
    text = printed(result, capsys)
    assert "…" not in text
    assert "\x1b" not in text
    for cell in cells(result):
        assert cell in text


def test_nothing_of_validation_and_latency_is_cut_either(validation, bench, capsys):
    for result in (validation(), bench()):
        text = printed(result, capsys)
        assert "…" not in text
        for cell in cells(result):
            assert cell in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_narrow_terminal_cells_are_folded_and_not_cut(validation, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    terminal.show(Facts("facts", {"notes": LONG}), False)
    terminal.show(validation(), False)
    text = out.getvalue()
    assert "…" not in text
    assert LONG in "".join(text.partition("accuracy")[0].replace("notes", "").split())


def test_every_type_in_the_table_is_the_result_of_a_command():
    homes = {
        "TrainResult": "training", "SeedsResult": "training", "Readiness": "training.readiness",
        "ExportResult": "export", "ValidationResult": "validation", "BenchResult": "bench",
        "VerifyResult": "validation",
        "SelfTestResult": "faults",
        "DebugResult": "debug",
        "HazardsResult": "debug", "ReportResult": "report", "PredictResult": "predict", "Facts": "inspection", "Diagnosis": "doctor",
    }  # fmt: skip
    assert terminal.RENDERERS.keys() == homes.keys()
    for name, home in homes.items():
        assert hasattr(importlib.import_module(f"toolkit.{home}"), name)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_json_round_trips(result, capsys):
    assert json.loads(printed(result, capsys, as_json=True)) == terminal.plain(result)


@pytest.mark.parametrize("passed", [True, False])
def test_json_of_validation_says_whether_it_passed_and_is_otherwise_the_result(validation, check, passed, capsys):
    result = validation(checks=[check(), check(passed=passed)])
    found = json.loads(printed(result, capsys, as_json=True))
    assert found.pop("passed") is passed
    assert type(result).model_validate(found) == result


def test_json_of_a_measurement_round_trips(bench, capsys):
    result = bench()
    assert type(result).model_validate_json(printed(result, capsys, as_json=True)) == result


def test_json_has_no_nan(validation, row, capsys):
    labels = validation().test_labels
    result = validation(rows=[row(labels, labels, labels, {"max_abs_logit": math.nan, "snr_db": math.inf})])
    facts = TrainResult(Path("c"), True, {"train_loss": math.nan, "lr": math.inf})
    for each in (result, facts):
        json.loads(printed(each, capsys, as_json=True), parse_constant=pytest.fail)


def test_validation_ends_with_passed_and_names_what_was_not_run_before(validation, capsys):
    *lines, last = printed(validation(), capsys).strip().splitlines()
    assert last == "PASSED: 2 checks, 1 comparison with PyTorch; 2 not run here"
    heading = lines.index(f"{tables.NOT_RUN}:")
    assert [line.strip().split(",")[0] for line in lines[heading + 1 :]] == ["coreml-ane", "coreai"]
    assert not [line for line in lines[:heading] if "coreml-ane" in line]
    assert "pass" not in "".join(lines[heading + 1 :]).lower()


def test_a_breach_fails_its_row_and_says_what_was_allowed_why_and_what_is_known(validation, check, capsys):
    broken = check(
        passed=False, level="test set", name="changed predictions", figure="9 changed", gate="≤ 2", why="of 10,000", detail="A hint"
    )
    text = printed(validation(checks=[check(), broken]), capsys)
    *_, last = text.strip().splitlines()
    assert last == "FAILED: 1 check of 2 failed; 2 not run here"
    line = "FAILED: coreml-fp16 on coreml-reference, test set: changed predictions: 9 changed; allowed ≤ 2 (of 10,000). A hint"
    assert line in text.splitlines()
    assert "FAIL " in next(line for line in text.splitlines() if "coreml-reference" in line)


@pytest.mark.parametrize("runtime", ["coreml-reference", None])
def test_a_breach_of_the_file_itself_fails_all_its_rows(validation, check, runtime):
    result = validation(checks=[check(passed=False, runtime=runtime)])
    assert [tables.verdict(result, row) for row in result.rows] == ["reference", "FAIL"]


def test_nothing_compared_is_not_passed(validation, capsys):
    result = validation()
    text = printed(result.model_copy(update={"rows": result.rows[:1]}), capsys)
    assert "FAILED: nothing was compared" in text.splitlines()[-1]
    assert "reference" in text


def test_a_reference_that_is_not_finite_fails(validation, check):
    result = validation(checks=[check(passed=False, artifact="torch", runtime="torch-cpu")])
    assert tables.verdict(result, result.rows[0]) == "FAIL"


def test_latency_tells_what_a_reader_must_know(bench, arm, capsys):
    failed = arm("coreml-fp16", "coreml-cpu", None, error="was killed by SIGKILL")
    control = arm("torch", "torch-cpu", 8.01, id="torch:torch-cpu (A/A)", control=True)
    short = arm("onnx-fp32", "onnxruntime-coreml", 2.0, calls=80)
    arms = [arm("torch", "torch-cpu", 8.0), control, arm("onnx-fp32", "onnxruntime-cpu", 2.0), short, failed]
    text = printed(bench(arms=arms, load_average_before=[4.5, 0, 0]), capsys)
    for words in ("8 [7.84, 8.16]", "2 [1.96, 2.04]", "512", "45.1", "33.8", "needs 459 calls, here are 400", "noise floor ±",
                  "failed: coreml-fp16:coreml-cpu: was killed by SIGKILL", "WARNING: the machine was busy", "load average 4.50 on 8 cores",
                  "INVALID onnx-fp32:onnxruntime-coreml: calls and time: 80 calls", "1.58 % between rounds",
                  "machine: processor Test 9000, cores 8", "coreml-ane, coreml-fp16: Core ML needs macOS"):  # fmt: skip
        assert words in text, words
    assert re.search(r"onnx-fp32:onnxruntime-cpu +torch:torch-cpu +0\.25 \[.*\] +faster", text)
    assert re.search(r"\(A/A\) +torch:torch-cpu +1 \[.*\] +same", text)
    states = [line.split()[-1] for line in text.splitlines() if line.startswith((" torch ", " onnx-fp32 ", " coreml-fp16 "))][:5]
    assert states == ["VALID", "VALID", "VALID", "INVALID", "FAILED"]
    assert not re.search(r"onnxruntime-coreml +torch:torch-cpu", text)  # what is invalid is not ranked


def test_a_calm_default_measurement_has_no_stamp_and_no_warning(bench, arm, capsys):
    text = printed(bench(arms=[arm("torch", "torch-cpu", 8.0, calls=300)], load_average_before=[4.0, 0, 0]), capsys)
    assert not [word for word in ("QUICK", "WARNING", "INVALID", "NOT VERIFIED", "INTERRUPTED") if word in text]


def test_a_quick_an_interrupted_and_an_unverified_measurement_are_stamped(bench, capsys):
    text = printed(bench(preset="quick", interrupted=True, checkpoint_sha256=None), capsys)
    assert latency.QUICK in text
    assert latency.INTERRUPTED in text
    assert latency.UNVERIFIED in text
    assert "no verdicts" in text


@pytest.mark.parametrize(("fields", "words"), [
    ({"scenario": "paced", "hz": 30.0}, ["paced at 30 Hz", "once begun (ms)"]), ({"scenario": "cold"}, ["cold starts", "load (ms)"]),
    ({"scenario": "offline"}, ["offline, batch 1"]),
    ({"scenario": "sustained", "sustained_s": 60.0}, ["sustained for 60 s", "p50 of each ten seconds", "slowest (ms)"]),
])  # fmt: skip
def test_every_scenario_is_named_in_the_title(bench, fields, words, capsys):
    text = printed(bench(**fields), capsys)
    for each in words:
        assert each in text


def test_threads_and_batch_are_columns_where_arms_differ_in_them(bench, arm, capsys):
    arms = [
        arm("onnx-fp32", "onnxruntime-cpu", 2.0, id=f"{threads} {batch}", threads=threads, batch=batch)
        for threads, batch in ((1, 1), (2, 8))
    ]
    text = printed(bench(arms=arms), capsys)
    assert "threads" in text
    assert "batch 1 and 8" in text


def test_loadgen_has_a_section_of_its_own(bench, capsys):
    from toolkit.bench.result import LoadGenRow

    row = LoadGenRow(arm="a:b", version="6", queries=700, seconds=10.0, p50_ms=12.0, p90_ms=13.0, p99_ms=14.0, valid=True, error=None)
    dead = row.model_copy(update={"arm": "c:d", "error": "was killed", "p50_ms": None})
    text = printed(bench(loadgen=[row, dead]), capsys)
    assert re.search(r"a:b +700 +10 +12 +13 +14 +VALID", text)
    assert "LoadGen failed: c:d: was killed" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.123456, "0.123"), (12.345, "12.3"), (2384.0, "2380"), (1.5, "1.5"), (0.0012349, "0.00123")]
)
def test_three_significant_digits_at_most(value, text):
    assert latency.digits(value) == text


def test_doctor_gives_each_problem_its_command(capsys):
    text = printed(DIAGNOSIS, capsys)
    assert "FAILED: numpy 2.4 with coremltools 9.0\n  mend it with: pip install 'numpy<2.4'\n" in text


def test_an_interrupted_training_says_how_to_go_on(capsys):
    assert "--resume" in printed(RESULTS[1], capsys)


def test_a_training_says_its_exact_interval_its_errors_and_where_the_time_went(capsys):
    """Clopper and Pearson for 42 errors of 10,000: 99.43 to 99.70 (R, binom.test)."""
    text = printed(RESULTS[0], capsys)
    assert "99.43–99.70" in text
    assert "42 of 10,000" in text
    assert "time: training 62 s" in text


def test_several_seeds_show_every_run_and_the_spread_between_them(capsys):
    text = printed(RESULTS[2], capsys)
    assert "mean of 2: 99.590 % ± 0.010 (standard deviation between runs)" in text
    assert "40 of 10,000" in text


def test_a_goal_that_was_missed_is_no_success(capsys):
    missed = TrainResult(Path("m/checkpoint"), True, {**MEASURED, "held_out_accuracy": 0.98, "image_visits": 9024}, reached=False)
    text = printed(missed, capsys)
    assert "9,024" in text
    assert "98.00" in text
    assert "FAILED: the accuracy that was asked for was not reached" in text
    seeds = SeedsResult(Path("m"), True, {"0": MEASURED, "1": MEASURED}, 0.9959, 0.0, 0.98, 0.001, {"0": True, "1": False})
    assert "on held-out images, to choose by: 98.000 % ± 0.100" in printed(seeds, capsys)
    assert "not reached by every seed" in printed(seeds, capsys)


def test_what_mps_lacks_is_a_row_and_the_rest_is_counted(capsys):
    text = printed(RESULTS[3], capsys)
    assert "aten::geqrf" in text
    assert "training step: 1 of 2 operators have an MPS kernel" in text
    assert "for 1, torch has one for all backends" in " ".join(text.split())
    assert "inference step: 0 of 1" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.12345, "0.1235"), (1.5, "1.500"), (12.345, "12.35"), (123.45, "123.5"), (4762.1, "4762"), (0, "0.0000")],
)
def test_numbers_have_about_four_digits_and_no_exponent(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize(("points", "text"), [(0.0, "0.00"), (-0.001, "0.00"), (0.28, "+0.28"), (-0.28, "-0.28")])
def test_a_difference_has_a_sign_unless_it_is_none(points, text):
    assert tables.signed(points) == text


def test_a_part_of_the_test_set_is_said_to_be_one(validation, capsys):
    assert "360 of 10000 (--limit) test images" in printed(validation(limit=360, test_images=10_000), capsys)


def test_few_rounds_and_few_calls_are_explained_below_the_table(bench, arm, capsys):
    text = printed(bench(arms=[arm("torch", "torch-cpu", 8.0, rounds=2, calls=20)]), capsys)
    assert "p50 without an interval: needs 3 rounds" in text
    assert "needs 44 calls" in text


def test_a_row_that_does_not_fit_its_table_is_a_bug_that_shows():
    with pytest.raises(ValueError, match="2 columns, but a row of 1"):
        tables.table("t", ("a", "b"), [("x",)])
