"""Kind 1: a model's folder that makes a command read, overwrite or delete what is not ours."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.hostile.attack import Attack

TRAIN = "train {model} --device cpu --restart --set train.epochs=0.1"
SEEDS = f"{TRAIN} --seeds 2"
A_LINK = "is a link, and nothing inside a model's folder is written through a link"
NOT_OURS = "is in the way: .* the toolkit did not make it and does not replace it"
LETTER, DOCUMENTS, EMACS = "victim/Documents/letter.txt", "victim/Documents", "victim/emacs"
EVENT = "tensorboard/events.out.tfevents.1.host"


def _manifest_names(model: Path, name: str) -> None:
    """The manifest of onnx-fp32 lists a file of that name as well."""
    path = model / "exports/onnx-fp32/manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def linked(name: str, to: str) -> Callable[[Path], None]:
    """`name`, inside the model's folder, becomes a link to `to`: a path from the folder that holds models/ and victim/, or `./…` inside."""

    def plant(model: Path) -> None:
        _remove(model / name)
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).symlink_to(model / to if to.startswith("./") else model.parents[1] / to)

    return plant


def moved_away(model: Path, name: str) -> None:
    """To another disk, with a link left in its place, as a user may have it."""
    elsewhere = model.parents[1] / "disk"
    elsewhere.mkdir()
    shutil.move(model / name, elsewhere / "it")
    (model / name).symlink_to(elsewhere / "it")


def users_own(model: Path, name: str) -> None:
    """A user's file of that name, in place of the folder that was there."""
    _remove(model / Path(name).parent)
    (model / name).parent.mkdir(parents=True)
    (model / name).write_text("the user's own", encoding="utf-8")


def _events_and_a_users_folder(model: Path) -> None:
    (model / EVENT).parent.mkdir()
    (model / EVENT).write_bytes(b"")
    linked("tensorboard.replaced.new", DOCUMENTS)(model)


def _forged_leftover(model: Path) -> None:
    """What looks as if a killed export had left it, and leads to a user's files."""
    _remove(model / "exports/onnx-fp32")
    place = model / "exports" / f".toolkit-{16 * '0'}"
    place.mkdir()
    (place / ".toolkit-leftover").write_text('written by the toolkit, and incomplete: "onnx-fp32"\n', encoding="utf-8")
    (place / "old").symlink_to(model.parents[1] / DOCUMENTS)
    (place / "new").symlink_to(model.parents[1] / EMACS)


def _marker_leads_out(model: Path) -> None:
    """A leftover's marker names a place outside: ../../../victim/stolen."""
    place = model / "exports" / f".toolkit-{16 * '0'}"
    shutil.copytree(model / "exports/onnx-fp32", place / "old")
    (place / ".toolkit-leftover").write_text('written by the toolkit, and incomplete: "../../../victim/stolen"\n', encoding="utf-8")


def _model_is_a_link(model: Path) -> None:
    moved = model.with_name("moved")
    model.rename(moved)
    model.symlink_to("moved")


ATTACKS = (
    Attack(
        "a manifest that names a file outside",
        lambda model: _manifest_names(model, "../../../../victim/Documents/letter.txt"),
        "inspect {model}/exports/onnx-fp32",
        says="outside the artifact",
    ),
    *(
        Attack(f"{name} → {to}, {words}", linked(name, to), words, says=A_LINK, spares=True)
        for name, to, words in (
            ("exports/onnx-fp32", DOCUMENTS, "export {model} --format onnx"),
            ("exports/coreml-fp16", DOCUMENTS, "export {model} --format coreml"),
            ("exports/coreml-fp16", DOCUMENTS, "export {model} --format coreml --keep-fp32 auto"),
            ("exports/onnx-fp32", "victim/nothing-yet", "export {model} --format onnx"),
            ("exports/onnx-fp32", "./checkpoint", "export {model} --format onnx"),
            ("exports", DOCUMENTS, "export {model} --format onnx"),
            ("exports", "./exports", "export {model} --format onnx"),
            ("checkpoint", EMACS, TRAIN),
            ("checkpoint", "victim/nothing-yet", TRAIN),
            ("checkpoint", "./exports/onnx-fp32", TRAIN),
            ("checkpoint", EMACS, SEEDS),
            ("metrics.jsonl", LETTER, TRAIN),
            ("metrics.jsonl", LETTER, SEEDS),
            ("tensorboard", DOCUMENTS, SEEDS),
            ("seeds/1/metrics.jsonl", LETTER, SEEDS),
            ("tensorboard", DOCUMENTS, TRAIN),
            ("tensorboard", DOCUMENTS, f"{TRAIN} --tensorboard"),
            ("seeds", DOCUMENTS, SEEDS),
            ("seeds/0", DOCUMENTS, SEEDS),
            ("seeds/seeds.json", LETTER, SEEDS),
            ("checkpoint/resume.pt", LETTER, SEEDS),
            ("reports", DOCUMENTS, "validate {model}"),
            ("reports", DOCUMENTS, "report {model}"),
            ("reports", DOCUMENTS, "bench {model} --quick --runtime torch-cpu"),
            ("reports/validation.json", LETTER, "validate {model}"),
            ("reports/evidence.json", LETTER, "validate {model}"),
            ("reports/report.html", LETTER, "report {model}"),
            ("reports/report.md", LETTER, "report {model}"),
        )
    ),
    Attack("checkpoint → .emacs.d's neighbour, train --resume", linked("checkpoint", EMACS), "train {model} --resume --device cpu"),
    Attack("a checkpoint on another disk is not replaced", partial(moved_away, name="checkpoint"), TRAIN, says=A_LINK, spares=True),
    Attack("a checkpoint on another disk is read", partial(moved_away, name="checkpoint"), "inspect {model}", code=0, spares=True),
    Attack("exports on another disk are not replaced", partial(moved_away, name="exports"), "export {model} --format onnx", says=A_LINK),
    Attack("the model itself on another disk is exported", _model_is_a_link, "export {model} --format onnx", code=0),
    Attack("a user's folder in an artifact's place", partial(users_own, name="exports/onnx-fp32/a.txt"), "export {model} --format onnx",
           says=NOT_OURS, spares=True),
    Attack("a user's folder in the checkpoint's place", partial(users_own, name="checkpoint/a.txt"), TRAIN, says=NOT_OURS, spares=True),
    Attack("a user's file among TensorBoard's", partial(users_own, name="tensorboard/a.txt"), TRAIN,
           says="is not an event file of TensorBoard", spares=True),
    *(
        Attack(f"{name} → {to}, a name that training once used of its own accord", linked(name, to), f"{SEEDS} --tensorboard", code=0)
        for name, to in (
            ("metrics.adopted.new", LETTER), ("metrics.adopted.new", "victim/nothing-yet"), ("tensorboard.adopted.new", DOCUMENTS),
        )
    ),
    Attack("a user's folder where old event files are moved aside", _events_and_a_users_folder, TRAIN, code=0),
    Attack("a leftover that leads to a user's files, predict", _forged_leftover, "inspect {model}/exports/onnx-fp32", spares=True),
    Attack("a leftover that leads to a user's files, export", _forged_leftover, "export {model} --format onnx", code=0),
    Attack("a leftover whose marker names a place outside, inspect", _marker_leads_out, "inspect {model}", code=0, spares=True),
    Attack("a leftover whose marker names a place outside, export", _marker_leads_out, "export {model} --format onnx", code=0),
)  # fmt: skip
