"""What the report says, section by section, without a word about how it looks: both templates show the same Page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.artifact import Artifact
from toolkit.report import latency, tables
from toolkit.report.findings import Gallery, check, confusion, curves, galleries
from toolkit.report.plots import Chart, latency_chart, training_charts
from toolkit.report.sources import Missing, Part, Sources
from toolkit.report.tables import Table, table

if TYPE_CHECKING:
    from toolkit.bench.result import Arm, BenchResult, Skipped
    from toolkit.validation.result import RuntimeRow, Unavailable, ValidationResult


@dataclass(frozen=True)
class Section:
    """`missing` says why there is nothing; otherwise tables, charts, galleries and notes follow in this order."""

    id: str
    title: str
    missing: str | None = None
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    model: str
    description: str
    passed: bool | None  # None: nobody knows yet
    verdict: str
    sections: list[Section]


def page(sources: Sources, data_dir: Path | None) -> Page:
    validation, recipe = sources.validation, sources.checkpoint.recipe
    if isinstance(validation, Missing):
        passed, verdict = None, f"NO VERDICT: {validation.why}"
    else:
        check(validation)
        passed, verdict = validation.passed, tables.verdict_line(validation)
        if passed and sources.doubts:
            passed, verdict = None, f"NOT VALIDATED AS IT IS: {'; '.join(sources.doubts)}. What was validated: {verdict}"
    sections = [
        _summary(sources),
        _artifacts(sources),
        _accuracy(validation, sources.doubts),
        *_predictions(sources, data_dir),
        _latency(sources.bench),
        _training(sources),
        _environment(sources),
        _not_run(sources),
    ]
    return Page(recipe.name, recipe.description, passed, verdict, sections)


def _summary(sources: Sources) -> Section:
    card, recipe = sources.checkpoint.card, sources.checkpoint.recipe
    state = "" if card.finished else ", NOT FINISHED: run `toolkit train --resume`"
    rows = [
        ("model", recipe.name),
        ("network", recipe.network.builder),
        ("data set", recipe.data.set),
        ("test accuracy", _test_accuracy(card.metrics)),
        ("trained on", f"{card.device}, {card.epochs_done:.4g} of {recipe.train.epochs} epochs, seed {card.seed}{state}"),
        ("checkpoint, sha256", card.weights_sha256[:12]),
        ("recipe, hash", card.recipe_hash[:12]),
    ]
    return Section("summary", "Summary", tables=[table("The model", ("what", "value"), rows)])


def _test_accuracy(metrics: dict[str, float]) -> str:
    """Of the saved file on the CPU. The interval is what a test set of this size can tell."""
    if "test_correct" not in metrics or "test_images" not in metrics:
        return "not measured yet: run `toolkit train` to its end"
    from toolkit.validation.statistics import exact_interval

    correct, images = int(metrics["test_correct"]), int(metrics["test_images"])
    low, high = exact_interval(correct, images)
    return (
        f"{tables.percent(correct / images)} % ({correct:,} of {images:,} test images), 95 % interval {tables.percent(low)} % to "
        f"{tables.percent(high)} % (exact, Clopper–Pearson)"
    )


def _artifacts(sources: Sources) -> Section:
    checkpoint = Part("torch", Artifact.of_checkpoint(sources.checkpoint), None)
    exported = [] if isinstance(sources.parts, Missing) else sources.parts
    columns = ("artifact", "format", "precision", "size (MB)*", "largest file", "its sha256, first 12 digits", "state")
    made = table("Files that were made", columns, [_artifact_row(part) for part in [checkpoint, *exported]])
    notes = [sources.parts.why] if isinstance(sources.parts, Missing) else []
    notes += [f"{part.id}: {note}" for part in exported if part.artifact for note in part.artifact.manifest.notes]
    return Section("artifacts", "Artifacts", tables=[made], notes=notes)


def _artifact_row(part: Part) -> tuple[str, ...]:
    if part.artifact is None:
        return (part.id, *[tables.NONE] * 5, part.problem or "")
    manifest, folder = part.artifact.manifest, part.artifact.folder
    sizes = {name: (folder / name).stat().st_size for name in manifest.files if Path(name).parts[0] == manifest.entry}
    largest = max(sizes, key=lambda name: sizes[name])
    size = f"{sum(sizes.values()) / 1e6:.2f}"
    return (part.id, manifest.format, manifest.precision, size, Path(largest).name, manifest.files[largest][:12], part.problem or "current")


def _accuracy(validation: "ValidationResult | Missing", doubts: list[str]) -> Section:
    title = "Accuracy and parity"
    if isinstance(validation, Missing):
        return Section("accuracy", title, missing=validation.why)
    notes = [tables.verdict_line(validation), *tables.breach_lines(validation), *doubts]
    if any(row.images != len(validation.test_indices) for row in validation.rows):
        notes.append("A slow runtime saw fewer images, the same share of every class; its Δ is against PyTorch on those images.")
    return Section("accuracy", title, tables=tables.validation_tables(validation), notes=notes)


def _predictions(sources: Sources, data_dir: Path | None) -> list[Section]:
    """Confusion matrix, wrong predictions, changed predictions: all three come from validation."""
    titles = {"confusion": "Confusion matrix", "mistakes": "Misclassified images", "changed": "Changed predictions"}
    validation = sources.validation
    if isinstance(validation, Missing):
        return [Section(name, title, missing=validation.why) for name, title in titles.items()]
    wrong, changed, problem = galleries(validation, data_dir)
    missing_pictures = [problem] if problem and (wrong.total or changed) else []
    return [
        Section("confusion", titles["confusion"], tables=[confusion(validation)]),
        Section(
            "mistakes", titles["mistakes"], galleries=[wrong] if wrong.total else [],
            notes=missing_pictures if wrong.total else ["No test image was misclassified."],
        ),
        Section(
            "changed", titles["changed"], galleries=changed,
            notes=missing_pictures if changed else ["No artifact changed a prediction of PyTorch, on any runtime that was run."],
        ),
    ]  # fmt: skip


def _latency(bench: "BenchResult | Missing") -> Section:
    if isinstance(bench, Missing):
        return Section("latency", "Latency", missing=bench.why)
    chart = latency_chart(bench)
    return Section(
        "latency", "Latency", tables=latency.latency_tables(bench), charts=[chart] if chart else [], notes=latency.latency_notes(bench)
    )


def _training(sources: Sources) -> Section:
    if isinstance(sources.records, Missing):
        return Section("training", "Training", missing=sources.records.why)
    card = sources.checkpoint.card
    series = curves(sources.records, card.metrics if card.finished else {}, card.epochs_done)
    columns = ("epoch*", f"{series.judge} accuracy (%)*")
    rows = [(f"{epoch:g}", tables.percent(share)) for epoch, share in zip(series.judged_epochs, series.judged_accuracy, strict=True)]
    notes = ["Train loss and accuracy are running means over the epoch so far, so they start anew with each epoch."]
    if smoothing := sources.checkpoint.recipe.train.label_smoothing:
        least = tables.least_loss(smoothing, len(card.class_labels))
        notes.append(f"The loss is the one that is minimised: with label smoothing {smoothing:g} it cannot fall below {least:.3f}.")
    shown = [table(f"{series.judge.capitalize()} accuracy by epoch", columns, rows)] if rows else []
    return Section("training", "Training", tables=shown, charts=training_charts(series), notes=notes)


def _environment(sources: Sources) -> Section:
    card = sources.checkpoint.card
    versions = {"system" if name == "platform" else name: value for name, value in card.versions.items()}
    made = {"training": {"device": card.device, **card.setting, **versions}}
    for name, result in (("validation", sources.validation), ("bench", sources.bench)):
        if not isinstance(result, Missing):
            made[name] = result.environment
    names = dict.fromkeys(name for environment in made.values() for name in environment)
    rows = [(name, *(environment.get(name, tables.NONE) for environment in made.values())) for name in names]
    return Section("environment", "Environment", tables=[table("Where the figures were made", ("what", *made), rows)])


def _not_run(sources: Sources) -> Section:
    """What cannot run here, and what nobody asked for. Neither counts as passed."""
    notes, rows = [], []
    if isinstance(sources.validation, Missing):
        notes.append(f"validate: {sources.validation.why}")
    else:
        rows += _left_out("validate", sources.validation.rows, sources.validation.unavailable)
    if isinstance(sources.bench, Missing):
        notes.append(f"bench: {sources.bench.why}")
    else:
        rows += _left_out("bench", sources.bench.arms, sources.bench.skipped)
    if not rows and not notes:
        notes.append("Every runtime was run.")
    shown = [table(tables.NOT_RUN, ("command", "runtime", "artifact", "reason"), rows)] if rows else []
    return Section("not-run", "Not run here, and why", tables=shown, notes=notes)


def _left_out(
    command: str, tried: "Sequence[RuntimeRow | Arm]", left_out: "Sequence[Unavailable | Skipped]"
) -> list[tuple[str, str, str, str]]:
    from toolkit.runtimes import RUNTIMES

    seen = {each.runtime for each in [*tried, *left_out]}
    rows = [(command, each.runtime, each.artifact or tables.NONE, each.reason) for each in left_out]
    return rows + [(command, name, tables.NONE, "it was not asked for") for name in RUNTIMES if name != "null" and name not in seen]
