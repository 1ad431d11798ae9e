"""Charts: what they show is in their words, and they follow the page's colours."""

import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from toolkit.report.findings import curves
from toolkit.report.plots import VARIABLES, latency_chart, training_charts


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_every_arm_that_was_measured_is_in_the_latency_chart_fastest_on_top(bench, arm):
    failed = arm("coreml-fp16", "coreml-cpu", None, error="was killed by SIGKILL")
    chart = latency_chart(bench(arms=[arm("torch", "torch-cpu", 8.0), arm("onnx-fp32", "onnxruntime-cpu", 2.0), failed]))
    assert {"torch · torch-cpu", "onnx-fp32 · onnxruntime-cpu", "8", "2", "p50 (ms)"} <= set(texts(chart.svg))
    assert "coreml-cpu" not in chart.svg
    assert chart.alt == "p50 latency, fastest first: onnx-fp32 · onnxruntime-cpu 2 ms; torch · torch-cpu 8 ms."


@pytest.mark.parametrize(("slowest", "logarithmic"), [(40.0, False), (41.0, True)])
def test_the_axis_is_logarithmic_from_twentyfold_on(bench, arm, slowest, logarithmic):
    chart = latency_chart(bench(arms=[arm("torch", "torch-cpu", slowest), arm("onnx-fp32", "onnxruntime-cpu", 2.0)]))
    assert ("p50 (ms), logarithmic" in texts(chart.svg)) is logarithmic


def test_without_a_measured_arm_there_is_no_chart(bench, arm):
    assert latency_chart(bench(arms=[arm("torch", "torch-cpu", None, error="no")])) is None


def test_an_arm_without_an_interval_is_drawn(bench, arm):
    chart = latency_chart(bench(arms=[arm("torch", "torch-cpu", 8.0, rounds=2)]))
    assert "7.96" in texts(chart.svg)  # rounds of 7.92 and 8


def test_every_round_is_a_mark_of_its_own(bench, arm):
    """One more path of five points for an arm of five rounds than for the same arm with one."""
    marks = [latency_chart(bench(arms=[arm("torch", "torch-cpu", 8.0, rounds=rounds)])).svg.count("<use ") for rounds in (1, 5)]
    assert marks[1] - marks[0] == 4


def test_names_are_drawn_as_they_are(bench, arm):
    name = "$\\frac</text><b>&語"
    assert f"{name} · torch-cpu" in texts(latency_chart(bench(arms=[arm(name, "torch-cpu", 8.0)])).svg)


def test_colours_are_the_pages_and_no_others(bench):
    svg = latency_chart(bench()).svg
    assert not [placeholder for placeholder in VARIABLES if placeholder in svg]
    assert "var(--ink)" in svg
    assert "var(--accent)" in svg
    assert "#ffffff" not in svg


def test_drawing_leaves_the_settings_of_matplotlib_alone(bench):
    before = dict(matplotlib.rcParams)
    latency_chart(bench())
    assert dict(matplotlib.rcParams) == before


RECORDS = [
    {"epoch": 0, "step": 50, "loss": 2.0, "accuracy": 0.3}, {"epoch": 0, "step": 80, "loss": 1.0, "accuracy": 0.6},
    {"epoch": 0, "test_accuracy": 0.7}, {"epoch": 1, "step": 50, "loss": 0.5, "accuracy": 0.8},
    {"epoch": 1, "step": 80, "loss": 0.4, "accuracy": 0.9},
]  # fmt: skip


def test_steps_count_on_over_epochs_and_tests_lie_at_their_ends():
    series = curves(RECORDS, {"test_accuracy": 0.95}, 2.0)
    assert series.steps == [50, 80, 130, 160]
    assert (series.judge, series.judged_steps, series.judged_epochs, series.judged_accuracy) == ("test", [80, 160], [1, 2], [0.7, 0.95])


def test_a_run_that_is_judged_by_held_out_images_has_the_curve_of_those():
    records = [*RECORDS[:2], {"epoch": 0, "held_out_accuracy": 0.6}, *RECORDS[3:]]
    series = curves(records, {"test_accuracy": 0.95, "held_out_accuracy": 0.9}, 2.0)
    assert (series.judge, series.judged_epochs, series.judged_accuracy) == ("held-out", [1, 2], [0.6, 0.9])
    _, accuracy = training_charts(series)
    assert accuracy.caption == "Train and held-out accuracy"
    assert accuracy.alt.endswith("Held-out accuracy ends at 90.00 %.")
    assert "held-out" in texts(accuracy.svg)


def test_a_run_shorter_than_an_epoch_was_last_tested_at_its_last_step():
    series = curves(RECORDS[:1], {"test_accuracy": 0.4}, 0.15)
    assert (series.judged_steps, series.judged_epochs, series.judged_accuracy) == ([50], [0.15], [0.4])


def test_an_unfinished_run_has_no_last_test():
    assert curves(RECORDS, {}, 1.5).judged_accuracy == [0.7]


def test_the_words_of_the_curves_say_where_they_begin_and_end():
    loss, accuracy = training_charts(curves(RECORDS, {"test_accuracy": 0.95}, 2.0))
    assert loss.alt == "Train loss over 160 steps, from 2 to 0.4."
    assert accuracy.alt == "Train accuracy over 160 steps, from 30.00 % to 90.00 %. Test accuracy ends at 95.00 %."
    assert {"train", "test", "accuracy (%)", "step"} <= set(texts(accuracy.svg))


def test_tests_without_steps_make_no_chart():
    assert training_charts(curves(RECORDS[2:3], {}, 1.0)) == []
