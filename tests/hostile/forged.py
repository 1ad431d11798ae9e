"""Kind 3: a folder that was forged, with everything hashed again. To add a forgery: a function that changes the folder, and a line below.

The forger can write into the model's folder, has this toolkit, and runs it. What he cannot change is the test set of the machine that
verifies, and what its user keeps elsewhere: a digest, or a key.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.hostile.attack import Attack
from toolkit.artifact import Artifact
from toolkit.checkpoint import CARD, WEIGHTS, Checkpoint
from toolkit.runtimes import find
from toolkit.validation.statistics import Paired, exact_interval

RUNS = {"onnx": "onnxruntime-cpu", "coreml": "coreml-reference", "coreai": "coreai"}
LAST_LAYER = "network.8.weight"
Change = Callable[[dict[str, Any]], object]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit(path: Path, change: Change) -> None:
    """Change a JSON file."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def hash_again(model: Path) -> None:
    """Every sha256 in the folder becomes that of what is there now: manifests, card, report, evidence."""
    card, report, evidence = model / "checkpoint" / CARD, model / "reports/validation.json", model / "reports/evidence.json"
    weights = sha256(model / "checkpoint" / WEIGHTS)
    edit(card, lambda values: values.update(weights_sha256=weights))
    found = {}
    for folder in sorted((model / "exports").iterdir()):
        edit(
            folder / "manifest.json",
            lambda values, folder=folder: values.update(
                checkpoint_sha256=weights, files={name: sha256(folder / name) for name in values["files"]}
            ),
        )
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        found[folder.name] = files | {"manifest.json": sha256(folder / "manifest.json")}
    edit(report, lambda values: values.update(checkpoint_sha256=weights, artifacts={"torch": {WEIGHTS: weights}, **found}))
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    images = {name: max(row["images"] for row in rows if row["artifact"] == name) for name in found}
    proof = {
        "artifacts": found, "images": images, "checkpoint_sha256": weights, "report_sha256": sha256(report),
        "recipe_sha256": sha256(model / "recipe.toml"), "card_sha256": sha256(card),
    }  # fmt: skip
    edit(evidence, lambda values: values.update({name: value for name, value in proof.items() if name in values}))


def golden_from_the_file(folder: Path, images: Any = None) -> None:
    """golden.npz holds what the forged file computes, of its own images or of others."""
    edit(folder / "manifest.json", lambda values: values.update(files={name: sha256(folder / name) for name in values["files"]}))
    artifact = Artifact.open(folder)
    images = artifact.golden()[0] if images is None else images
    session = find(RUNS[artifact.format]).open(artifact, 1)
    try:
        logits = np.concatenate([session({"image": images[i : i + 32]})["logits"] for i in range(0, len(images), 32)])
    finally:
        session.close()
    np.savez_compressed(folder / "golden.npz", images=images, logits=logits.astype(np.float64))


def onnx_bias(model: Path, by: float = 3.0) -> Path:
    """The bias of the last layer's first class is another."""
    folder = model / "exports/onnx-fp32"
    program = onnx.load(folder / "model.onnx")
    (bias,) = [tensor for tensor in program.graph.initializer if list(tensor.dims) == [10]]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += by
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(program, folder / "model.onnx")
    return folder


def weights_in(folder: Path, model: Path, dtype: str) -> None:
    """The last layer's weights of whatever file of the artifact holds them become others."""
    weights = Checkpoint.open(model / "checkpoint").weights()[LAST_LAYER].numpy().astype(dtype)
    (path,) = [path for path in folder.rglob("*") if path.is_file() and weights.tobytes() in path.read_bytes()]
    path.write_bytes(path.read_bytes().replace(weights.tobytes(), (1.2 * weights).astype(dtype).tobytes()))


def onnx_and_golden(model: Path) -> None:
    golden_from_the_file(onnx_bias(model))


def coreml_and_golden(model: Path) -> None:
    folder = model / "exports/coreml-fp16"
    weights_in(folder, model, "<f2")
    golden_from_the_file(folder)


def coreai_and_golden(model: Path) -> None:
    folder = model / "exports/coreai-fp32"
    weights_in(folder, model, "<f4")
    (program,) = folder.rglob("main.mlirb")
    program.with_name("main.hash").write_bytes(hashlib.sha256(program.read_bytes()).digest())
    golden_from_the_file(folder)


def weights_of_the_checkpoint(model: Path) -> None:
    """Another checkpoint beside the files that were exported."""
    import safetensors.torch

    path = model / "checkpoint" / WEIGHTS
    weights = safetensors.torch.load_file(path)
    weights[LAST_LAYER] *= 1.2
    safetensors.torch.save_file(weights, path)


def golden_of_one_image(model: Path) -> None:
    """One on which the forged file is right."""
    folder = model / "exports/onnx-fp32"
    images, logits = Artifact.open(folder).golden()
    onnx_bias(model, 1e-5)
    np.savez_compressed(folder / "golden.npz", images=images[:1], logits=logits[:1])


def golden_of_chosen_images(model: Path) -> None:
    """64 different ones, and right: but no export takes these."""
    from toolkit.validation.truth import double

    folder = model / "exports/onnx-fp32"
    images = Artifact.open(folder).golden()[0].copy()
    images[:] = 0
    images[np.arange(64), 0, 0, np.arange(64) % images.shape[3]] = np.arange(64)
    np.savez_compressed(folder / "golden.npz", images=images, logits=double(Checkpoint.open(model / "checkpoint"), images))


def claims(by: float = 0.01, **fields: Any) -> Callable[[Path], None]:
    """The manifest says something else, so that other gates hold, or none; the file is another, within those."""

    def forge(model: Path) -> None:
        folder = onnx_bias(model, by)
        edit(folder / "manifest.json", lambda values: values.update(fields))

    return forge


def probabilities(model: Path) -> None:
    """The logits are right, and the probabilities, which apps show, are those of other classes."""
    folder = model / "exports/onnx-fp32"
    program = onnx.load(folder / "model.onnx")
    (softmax,) = [node for node in program.graph.node if "probabilities" in node.output]
    softmax.output[0] = "honest"
    order = onnx.numpy_helper.from_array(np.roll(np.arange(10), 1), "order")
    program.graph.initializer.append(order)
    program.graph.node.append(onnx.helper.make_node("Gather", ["honest", "order"], ["probabilities"], axis=1))
    onnx.save(program, folder / "model.onnx")


def card(**metrics: Any) -> Callable[[Path], None]:
    """An accuracy that was never measured, on the card and in the manifests."""

    def forge(model: Path) -> None:
        edit(model / "checkpoint" / CARD, lambda values: values["metrics"].update(metrics))
        for path in model.glob("exports/*/manifest.json"):
            edit(path, lambda values: values.update(test_accuracy=metrics["test_accuracy"]))

    return forge


def card_labels(model: Path) -> None:
    """Two class names are exchanged everywhere but in the file, which says none."""

    def exchange(values: dict[str, Any]) -> None:
        values["class_labels"][:2] = values["class_labels"][1::-1]

    for path in (model / "checkpoint" / CARD, model / "reports/validation.json", *model.glob("exports/*/manifest.json")):
        edit(path, exchange)


def report(change: Change) -> Callable[[Path], None]:
    return lambda model: edit(model / "reports/validation.json", change)


def rows_of(values: dict[str, Any], runtime: str = "onnxruntime-cpu") -> dict[str, Any]:
    (row,) = [row for row in values["rows"] if row["runtime"] == runtime]
    return row


def count_again(values: dict[str, Any]) -> None:
    """Figures that follow from the decisions are made to follow from them."""
    labels, before = np.array(values["test_labels"]), np.array(values["reference_predictions"])
    for row in values["rows"]:
        after = np.array([row["changed"].get(str(index), old) for index, old in zip(values["test_indices"], before, strict=True)])
        right, was = after == labels, before == labels
        paired = Paired(len(labels), int((was & ~right).sum()), int((right & ~was).sum()))
        row["images"] = len(labels)
        row["figures"] |= {
            "accuracy": float(right.mean()), "accuracy_interval": exact_interval(int(right.sum()), len(labels)),
            "reference_accuracy": float(was.mean()), "lost": paired.lost, "gained": paired.gained,
            "difference_interval": paired.interval(), "mcnemar_p": paired.p_value,
        }  # fmt: skip


def another_accuracy(values: dict[str, Any]) -> None:
    rows_of(values)["figures"]["accuracy"] = 1.0


def hidden_breach(values: dict[str, Any]) -> None:
    rows_of(values)["figures"]["max_abs_logit"] = 7.0


def wider_than_the_recipe(values: dict[str, Any]) -> None:
    rows_of(values)["allowed_changed"] = 300


def checks_taken_out(values: dict[str, Any]) -> None:
    values["checks"] = [check for check in values["checks"] if (check["level"], check["artifact"]) != ("golden", "onnx-fp32")]


def smaller_test_set(values: dict[str, Any]) -> None:
    """As if these were all images there are."""
    values["test_images"] = 50
    for name in ("test_labels", "test_indices", "reference_predictions"):
        values[name] = values[name][:50]
    for row in values["rows"]:
        row["changed"] = {index: label for index, label in row["changed"].items() if int(index) < 50}
    count_again(values)


def other_labels(values: dict[str, Any]) -> None:
    """Every prediction is right: the labels were made from them."""
    values["test_labels"] = list(values["reference_predictions"])
    count_again(values)


def other_predictions(values: dict[str, Any]) -> None:
    """Every prediction is right: PyTorch is said to have made others."""
    values["reference_predictions"] = list(values["test_labels"])
    count_again(values)


def another_data_set(model: Path) -> None:
    """One that the machine that verifies does not have, and therefore does not check."""
    for name in ("validation", "evidence"):
        edit(model / f"reports/{name}.json", lambda values: values.update(dataset="mnist", data_sha256="0" * 64))


def card_alone(model: Path) -> None:
    """Nothing else has to change."""
    edit(model / "checkpoint" / CARD, lambda values: values["metrics"].update(train_accuracy=1.0, train_loss=0.0))


def recipe_with(gates: str) -> Callable[[Path], None]:
    def forge(model: Path) -> None:
        path = model / "recipe.toml"
        path.write_text(path.read_text(encoding="utf-8") + gates, encoding="utf-8")
        tomllib.loads(path.read_text(encoding="utf-8"))
        onnx_bias(model, 1.0)

    return forge


@dataclass(frozen=True)
class Forgery:
    """`caught`: the name of a check that must fail. `hashed`: whether all is hashed again afterwards."""

    name: str
    forge: Callable[[Path], object]
    caught: str
    hashed: bool = True


GOLDEN = "golden outputs are those of the checkpoint"
FORGERIES: tuple[Forgery, ...] = (
    Forgery("an ONNX file, and golden outputs made from it", onnx_and_golden, GOLDEN),
    Forgery("an ONNX file, and nothing else", onnx_bias, "golden logits on onnxruntime-cpu"),
    Forgery("a checkpoint beside the files that were exported", weights_of_the_checkpoint, GOLDEN),
    Forgery("golden outputs of one image", golden_of_one_image, "golden images are those of the export"),
    Forgery("golden outputs of chosen images", golden_of_chosen_images, "golden images are those of the export"),
    Forgery("compression that is only claimed", claims(compression="palettized"), "compression"),
    Forgery("fp16 that is only claimed", claims(precision="fp16"), "number format of the weights"),
    Forgery("another description of the preprocessing", claims(1e-6, preprocessing="none"), "preprocessing in the manifest"),
    Forgery("probabilities of other classes", probabilities, "probabilities are softmax of the logits on onnxruntime-cpu"),
    Forgery("an accuracy on the card", card(test_accuracy=0.999), "accuracy is that of the checkpoint's card"),
    Forgery(
        "an accuracy and its count on the card", card(test_accuracy=1.0, test_correct=360), "accuracy is that of the checkpoint's card"
    ),
    Forgery("class names exchanged", card_labels, "labels and classes are those of the test set"),
    Forgery("an accuracy in the report", report(another_accuracy), "figures follow from its rows"),
    Forgery("a breach in the report that no check names", report(hidden_breach), "verdicts follow from its figures"),
    Forgery("a gate in the report that is not the recipe's", report(wider_than_the_recipe), "verdicts follow from its figures"),
    Forgery("checks taken out of the report", report(checks_taken_out), "every question was asked"),
    Forgery("a smaller test set in the report", report(smaller_test_set), "labels and classes are those of the test set"),
    Forgery("other labels in the report", report(other_labels), "labels and classes are those of the test set"),
    Forgery("other predictions in the report", report(other_predictions), "PyTorch's predictions are those of the checkpoint"),
    Forgery("another data set, which is not there", another_data_set, "data set"),
    Forgery("the card alone", card_alone, "sha256 of its card", hashed=False),
)
OTHER_FORMATS: tuple[Forgery, ...] = (
    Forgery("a Core ML file, and golden outputs made from it", coreml_and_golden, GOLDEN),
    Forgery("a Core AI file, and golden outputs made from it", coreai_and_golden, GOLDEN),
)  # fmt: skip


def only(model: Path, *names: str) -> None:
    """A folder with these artifacts alone, and reports that fit."""
    import shutil

    for folder in (model / "exports").iterdir():
        if folder.name not in names:
            shutil.rmtree(folder)
    hash_again(model)


ATTACKS: Iterable[Attack] = ()  # carried out by test_forged.py, which looks at the check that fails
