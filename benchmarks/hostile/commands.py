"""COMMANDS: what is run on a hostile folder. To add one: a line.

`{model}` is the model's folder, `{name}` its name, `{out}` a folder beside the models to write into, `{picture}`, `{file}` and
`{artifact}` one of what the house has.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.scene import Scene


@dataclass(frozen=True)
class Command:
    """`touches`: what of the model it reads or writes (PARTS), which is mostly what is changed. `weight`: how often it is taken."""

    name: str
    words: str
    touches: str
    weight: float = 1
    unfinished: float = 0.1  # how often the model is one whose training was interrupted


COMMANDS = {
    command.name: command
    for command in (
        Command("train", "train {model} --device cpu --epochs 0.05", "recipe checkpoint metrics", 2, unfinished=0.5),
        Command("train-resume", "train {model} --device cpu --resume", "recipe checkpoint checkpoint metrics", 2, unfinished=0.7),
        Command(
            "train-restart",
            "train {model} --device cpu --epochs 0.05 --restart --save-minutes 0",
            "recipe checkpoint metrics",
            2,
            unfinished=0.3,
        ),
        Command("train-tensorboard", "train {model} --device cpu --epochs 0.05 --restart --tensorboard", "recipe checkpoint metrics", 0.5),
        Command("train-seeds", "train {model} --device cpu --epochs 0.05 --restart --seeds 2", "recipe checkpoint metrics seeds", 0.5),
        Command(
            "train-set", "train {model} --device cpu --epochs 0.05 --restart --set train.lr=0.2 --json", "recipe checkpoint metrics", 0.5
        ),
        Command("export-onnx", "export {model} --format onnx", "recipe checkpoint onnx", 2.5),
        Command("export-coreml", "export {model} --format coreml", "recipe checkpoint coreml", 2.5),
        Command("export-coreml-tensor", "export {model} --format coreml --input tensor --precision fp32", "recipe checkpoint coreml", 0.5),
        Command("export-coreai", "export {model} --format coreai", "recipe checkpoint coreai", 1.5),
        Command("export-all", "export {model} --format onnx --format coreml --json", "recipe checkpoint onnx coreml", 0.5),
        Command("validate-torch", "validate {model} --limit 20 --runtime torch-cpu", "recipe checkpoint reports", 1.5),
        Command("validate-onnx", "validate {model} --limit 20 --runtime onnxruntime-cpu", "recipe checkpoint onnx onnx onnx reports", 2.5),
        Command(
            "validate-coreml", "validate {model} --limit 20 --runtime coreml-reference", "recipe checkpoint coreml coreml coreml reports", 2
        ),
        Command("validate-coreai", "validate {model} --limit 20 --runtime coreai", "recipe checkpoint coreai coreai reports", 1.5),
        Command(
            "validate-junit",
            "validate {model} --limit 20 --runtime onnxruntime-cpu --junit {out}/junit.xml --json",
            "onnx checkpoint recipe reports",
            1,
        ),
        Command("validate-artifact", "validate {model} --limit 20 --artifact {artifact}", "{artifact} {artifact} checkpoint reports", 0.7),
        Command("verify", "verify {model}", "reports reports recipe checkpoint onnx coreml coreai", 3),
        Command("verify-json", "verify {model} --json", "reports reports recipe checkpoint onnx coreml coreai", 0.5),
        Command("inspect", "inspect {model}", "recipe checkpoint onnx coreml coreai reports", 2),
        Command("inspect-artifact", "inspect {model}/exports/{artifact}", "{artifact}", 4),
        Command("inspect-checkpoint", "inspect {model}/checkpoint --json", "checkpoint", 2),
        Command("predict-torch", "predict {model} {picture} {picture}", "checkpoint", 2),
        Command("predict-onnx", "predict {model} {picture} --runtime onnxruntime-cpu", "checkpoint onnx onnx", 3),
        Command("predict-reference", "predict {model} {picture} --runtime onnx-reference", "checkpoint onnx onnx", 0.5),
        Command(
            "predict-coreml", "predict {model} {picture} --runtime coreml-reference --artifact coreml-fp16", "checkpoint coreml coreml", 3
        ),
        Command("predict-coreai", "predict {model} {picture} --runtime coreai --json", "checkpoint coreai coreai", 2.5),
        Command("bench", "bench {model} --quick --runtime torch-cpu", "checkpoint reports", 0.5),
        Command("bench-onnx", "bench {model} --quick --runtime onnxruntime-cpu", "checkpoint onnx reports", 0.7),
        Command("bench-file", "bench {file} --quick --out {out}/bench.json", "reports", 1.5),
        Command("bench-own-file", "bench {model}/exports/{artifact}/{entry} --quick --out {out}/bench.json", "{artifact}", 1.2),
        Command("report", "report {model}", "reports reports metrics checkpoint recipe onnx", 3),
        Command("report-json", "report {model} --json", "reports reports metrics checkpoint recipe", 0.5),
        Command("report-bench", "report {model}/reports/bench.json", "reports", 1),
        Command("debug-onnx", "debug onnx-fp32 --model {model}", "onnx onnx checkpoint reports recipe", 1),
        Command("debug-coreml", "debug coreml-fp16 --model {model}", "coreml coreml checkpoint reports recipe", 1),
        Command("debug-coreai", "debug coreai-fp32 --model {model}", "coreai coreai checkpoint reports", 0.7),
        Command("hazards", "validate {model} --hazards --limit 4", "recipe checkpoint coreml", 0.5),
        Command("doctor", "doctor", "recipe", 0.3),
        Command("doctor-mps", "doctor --mps {model}", "recipe", 0.3),
    )
}
PARTS = {  # a word of `touches` → where it is in the model's folder
    "recipe": "recipe.toml", "checkpoint": "checkpoint", "metrics": "metrics.jsonl", "seeds": "seeds", "reports": "reports",
    "onnx": "exports/onnx-fp32", "coreml": "exports/coreml-fp16", "coreai": "exports/coreai-fp32",
}  # fmt: skip
ENTRIES = {"onnx-fp32": "model.onnx", "coreml-fp16": "model.mlpackage", "coreai-fp32": "model.aimodel"}


def draw(rng: random.Random, only: list[str]) -> Command:
    """One of those whose name begins with a word of `only`, or of all."""
    chosen = [each for each in COMMANDS.values() if not only or any(each.name.startswith(word) for word in only)]
    return rng.choices(chosen, [each.weight for each in chosen])[0]


def aims(command: Command, artifact: str) -> list[str]:
    """Where in the model's folder a change concerns this command."""
    return [PARTS.get(word, f"exports/{artifact}") for word in command.touches.split()]


def words_of(command: Command, scene: Scene) -> list[str]:
    """The words of its command line, in this scene."""
    rng = scene.rng
    artifact = scene.artifact
    pictures, files = (sorted((scene.house / name).iterdir()) for name in ("pictures", "files"))
    model = rng.choice([str(scene.model), str(scene.model), _relative(scene), f"{scene.model}/", scene.model.name])
    if command.words.startswith(("inspect", "bench {model}/", "report {model}/")) and model == scene.model.name:
        model = _relative(scene)  # these take paths
    filled = []
    for word in command.words.split():
        good = scene.house / "pictures" / "good.png"  # else most files of a model would never be opened
        picture = good if rng.random() < 0.75 and good.exists() else rng.choice(pictures)
        values = {
            "model": model, "out": str(scene.house / "out"), "picture": str(picture), "file": str(rng.choice(files)),
            "artifact": artifact, "entry": ENTRIES[artifact],
        }  # fmt: skip
        filled.append(word.format(**values))
    return filled


def _relative(scene: Scene) -> str:
    return f"./{scene.model.relative_to(scene.house)}" if scene.model.is_relative_to(scene.house) else str(Path(scene.model))
