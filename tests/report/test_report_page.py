"""The page and the Markdown: complete, honest about what is absent, and safe whatever the files say."""

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sklearn.metrics import confusion_matrix

from toolkit import report as room
from toolkit.checkpoint import Checkpoint
from toolkit.errors import CheckpointError, ToolkitError
from toolkit.recipe import Recipe
from toolkit.report import tables
from toolkit.report.findings import confusion
from toolkit.report.latency import latency_tables
from toolkit.report.report import markdown
from toolkit.validation.statistics import exact_interval

HOSTILE = "<script>alert(1)</script>|`x`"


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag that was opened was closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def make(workspace, data_dir=None) -> tuple[Page, str, str]:
    result = room.report(workspace, data_dir=data_dir)
    html = result.html.read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    return page, html, result.markdown.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(written, validation, bench):
    page, html, _ = make(written(validation(), bench()))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:80])
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert html.count("url(") == html.count("url(#")


def test_every_picture_and_chart_has_words_and_every_table_a_caption_and_headers(written, validation, bench):
    page, html, _ = make(written(validation(), bench()))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 5 + 2
    assert all(attributes["alt"] for attributes in pictures)
    assert "test image 0, true → predicted" in str(pictures[0]["alt"])
    charts = [attributes for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert len(charts) == html.count("<svg ") == 3
    assert all(attributes["aria-label"] for attributes in charts)
    assert html.count("<table") == html.count("<caption>") == html.count("<thead>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_cell_of_the_validation_and_latency_tables_is_in_both(written, validation, bench):
    checked, measured = validation(), bench()
    page, _, text = make(written(checked, measured))
    shown = {cell for each in (*tables.validation_tables(checked), *latency_tables(measured)) for row in each.rows for cell in row}
    assert {"98.61", "98.06", "-0.56 [-3.21, +1.23]", "0.012", "61.5", "0.023", "1 of 1", "8 [7.84, 8.16]", "faster", "512"} <= shown
    for cell in shown:
        assert cell in page.text
        assert markdown(cell) in text


def test_hostile_labels_and_names_stay_text(written, validation, bench):
    labels = [HOSTILE, "a | b", "$x^{$", "_under_", *"456789"]
    plain = validation()
    rows = [each.model_copy(update={"artifact": HOSTILE}) for each in plain.rows]
    arms = [each.model_copy(update={"artifact": f"{HOSTILE}$\\frac$"}) for each in bench().arms]
    page, html, text = make(written(validation(class_labels=labels, rows=rows), bench(arms=arms)))
    assert "<script" not in html
    assert "<script" not in text
    assert HOSTILE in page.text
    table = [line for line in text.splitlines() if line.startswith("|") and "true ↓" in line]
    assert len(table) == 1
    assert table[0].replace("\\|", "").count("|") == len(labels) + 3  # a | in a label makes no new column


def test_the_confusion_matrix_is_sklearns(validation):
    result = validation()
    shown = [[int(cell) for cell in row[1:-1]] for row in confusion(result).rows]
    assert shown == confusion_matrix(result.test_labels, result.reference_predictions, labels=range(10)).tolist()
    assert [int(row[-1]) for row in confusion(result).rows] == [sum(row) for row in shown]


def test_what_is_absent_is_said_with_the_command_that_makes_it(written):
    workspace = written()
    shutil.rmtree(workspace.exports, ignore_errors=True)  # another test may have exported the shared model
    page, _, text = make(workspace)
    for shown in (page.text, text.replace("\\", "")):
        assert "not measured yet: run `toolkit validate`" in shown
        assert "not measured yet: run `toolkit bench`" in shown
        assert "nothing exported yet: run `toolkit export --format coreml`" in shown
        assert "NO VERDICT" in shown
        assert "PASSED" not in shown


def test_without_metrics_the_curves_are_said_to_be_missing(written):
    workspace = written()
    workspace.metrics.unlink()
    page, html, _ = make(workspace)
    assert "not recorded: there is no metrics.jsonl" in page.text
    assert "<svg" not in html


def test_results_of_another_checkpoint_are_refused(written, validation, bench):
    page, _, text = make(written(validation(checkpoint_sha256="0" * 64), bench(checkpoint_sha256="1" * 64)))
    for shown in (page.text, text.replace("\\", "")):
        assert "validation.json was made from another checkpoint" in shown
        assert "run `toolkit validate` again" in shown
        assert "bench.json was made from another checkpoint" in shown
        assert "+1.23" not in shown  # of the interval of its difference in accuracy
        assert "7.760" not in shown


@pytest.mark.parametrize("name", ["validation.json", "bench.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2}', "\x00"])
def test_a_damaged_result_is_an_error_that_names_the_file(written, name, content):
    workspace = written()
    workspace.reports.mkdir(exist_ok=True)
    (workspace.reports / name).write_text(content)
    with pytest.raises(ToolkitError, match=name):
        room.report(workspace)
    assert not (workspace.reports / "report.html").exists()


@pytest.mark.parametrize("line", ['{"epoch": 1', "[1]", "7", '{"epoch": 1, "step": 2}', '{"epoch": null, "test_accuracy": 1}'])
def test_a_damaged_line_of_metrics_is_an_error_that_names_it(written, line):
    workspace = written()
    workspace.metrics.write_text('{"epoch": 0, "test_accuracy": 0.5}\n' + line + "\n")
    with pytest.raises(ToolkitError, match=r"metrics\.jsonl, line 2"):
        room.report(workspace)


@pytest.mark.parametrize("fields", [{"test_labels": [1, 2]}, {"class_labels": ["a", "b"]}, {"test_indices": [0]}, {"test_images": 9}])
def test_a_validation_that_does_not_fit_itself_is_an_error(written, validation, fields):
    with pytest.raises(ToolkitError, match=r"validation\.json does not fit itself"):
        room.report(written(validation(**fields)))


def test_a_run_that_held_images_out_has_a_report(written):
    workspace = written()
    workspace.metrics.write_text(
        '{"epoch": 0, "step": 4, "loss": 1.0, "accuracy": 0.5}\n{"epoch": 0, "held_out_accuracy": 0.625}\n', encoding="utf-8"
    )
    room.report(workspace)
    assert "Held-out accuracy by epoch" in (workspace.reports / "report.html").read_text(encoding="utf-8")


def test_without_a_checkpoint_there_is_no_report(fresh):
    with pytest.raises(CheckpointError, match="toolkit train"):
        room.report(fresh)


def test_without_the_data_set_the_report_says_why_there_are_no_pictures(written, validation, tmp_path: Path):
    page, _, text = make(written(validation(dataset="mnist")), tmp_path / "empty")
    assert not [tag for tag, _ in page.tags if tag == "img"]
    for shown in (page.text, text):
        assert "The pictures are missing: MNIST is not in" in shown
    assert "--data-dir" in page.text
    assert "Misclassified by PyTorch fp32 on the CPU: 5" in page.text


def test_at_most_48_mistakes_are_shown_and_the_rest_is_counted(written, validation):
    labels = validation().test_labels
    wrong = [(label + 1) % 10 if index < 60 else label for index, label in enumerate(labels)]
    page, _, text = make(written(validation(reference_predictions=wrong, rows=validation().rows[:1])))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 48
    assert "12 more are not" in page.text
    assert "12 more are not" in text


def test_a_changed_prediction_is_shown_with_both_classes(written, validation):
    result = validation()
    _, _, text = make(written(result))
    before, after = result.reference_predictions[7], result.rows[1].changed[7]
    assert f"| 7 | {before} → {after} |" in text


def test_what_was_not_run_is_listed_and_not_called_passed(written, validation, bench):
    page, _, text = make(written(validation(), bench()))
    for shown in (page.text, text):
        assert tables.NOT_RUN in shown
    for line in text.splitlines():
        if "coreml-ane" in line:
            assert "Core ML needs macOS" in line
            assert "pass" not in line.lower()
    assert "| validate | torch-mps | – | it was not asked for |" in text


def test_artifacts_are_listed_with_size_and_checksum(written, exported):
    page, _, text = make(written(source=exported))
    assert Checkpoint.open(exported.checkpoint).card.weights_sha256[:12] in page.text
    for folder in exported.exports.iterdir():
        assert f"| {folder.name} |" in text
    assert "| current |" in text


def test_a_damaged_artifact_is_listed_with_its_fault(written, exported):
    workspace = written(source=exported)
    with next((workspace.exports / "onnx-fp32").glob("*.onnx")).open("ab") as file:
        file.write(b"x")
    page, _, _ = make(workspace)
    assert "was changed after the export" in page.text


@pytest.mark.parametrize(("correct", "images", "low", "high"), [(10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (8, 10, 0.4439, 0.9748)])
def test_the_interval_is_clopper_and_pearsons(correct, images, low, high):
    """Reference: the tables of Clopper and Pearson (1934) to four decimals."""
    assert exact_interval(correct, images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("smoothing", "classes"), [(0.1, 10), (0.3, 2), (0.9, 4)])
def test_no_loss_falls_below_the_least_one(smoothing, classes):
    """By torch: the loss of the very distribution that smoothed labels are, and that of others."""
    import torch

    shares = torch.full((classes,), smoothing / classes, dtype=torch.float64)
    shares[0] += 1 - smoothing

    def loss(logits):
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(0), label_smoothing=smoothing))

    least = tables.least_loss(smoothing, classes)
    assert loss(shares.log()) == pytest.approx(least, abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    assert all(loss(torch.randn(classes, dtype=torch.float64, generator=generator)) >= least for _ in range(20))


@pytest.mark.parametrize(("smoothing", "words"), [(0.0, None), (0.1, "with label smoothing 0.1 it cannot fall below 0.500")])
def test_a_smoothed_loss_is_said_to_be_one(fresh, smoothing, words):
    from toolkit.training import train

    recipe = Recipe.read(fresh.recipe, ["train.subset=64", "train.epochs=1", f"train.label_smoothing={smoothing}"])
    train(fresh, recipe, device="cpu")
    text = make(fresh)[0].text
    assert ("label smoothing" in text.partition("Training")[2]) == (words is not None)
    assert words is None or words in text


def test_the_same_results_make_the_same_page(written, validation, bench):
    workspace = written(validation(), bench())
    assert make(workspace)[1:] == make(workspace)[1:]


def test_importing_the_room_is_light():
    heavy = "{'torch', 'matplotlib', 'jinja2', 'scipy', 'numpy', 'rich'}"
    code = f"import sys, toolkit.report, toolkit.report.terminal; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
    code = "import toolkit.report.report as _; from toolkit import report as room; print(callable(room.report))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_an_unfinished_training_is_said_to_be_one(written):
    workspace = written()
    path = workspace.checkpoint / "checkpoint.json"
    card = json.loads(path.read_text())
    card |= {"finished": False, "epochs_done": 1.5, "metrics": {"train_loss": 0.5}}
    path.write_text(json.dumps(card))
    page, _, _ = make(workspace)
    assert "1.5 of 3 epochs, seed 0, NOT FINISHED: run `toolkit train --resume`" in page.text
    assert "not measured yet: run `toolkit train` to its end" in page.text


def test_no_mistakes_and_no_changes_are_said_in_words(written, validation):
    plain = validation()
    page, _, _ = make(written(validation(reference_predictions=plain.test_labels, rows=plain.rows[:1])))
    assert "No test image was misclassified." in page.text
    assert "No artifact changed a prediction of PyTorch" in page.text
