"""COMMANDS: what is run on a hostile folder. To add one: a line.

`{model}` is the model's folder, `{name}` its name, `{out}` a folder beside the models to write into, `{picture}`, `{file}` and
`{artifact}` one of what the house has. `reads`: the seed that it starts from, where that matters.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.scene import Scene


@dataclass(frozen=True)
class Command:
    """`weight`: how often it is taken, beside the others. `seconds`: how long it may take, alone on a core."""

    name: str
    words: str
    weight: float = 1
    seconds: float = 120
    unfinished: float = 0.1  # how often the model is one whose training was interrupted


COMMANDS = {
    command.name: command
    for command in (
        Command("train", "train {model} --device cpu --epochs 0.05", 2, unfinished=0.5),
        Command("train-resume", "train {model} --device cpu --resume", 2, unfinished=0.7),
        Command("train-restart", "train {model} --device cpu --epochs 0.05 --restart --save-minutes 0", 2, unfinished=0.3),
        Command("train-tensorboard", "train {model} --device cpu --epochs 0.05 --restart --tensorboard", 0.5),
        Command("train-seeds", "train {model} --device cpu --epochs 0.05 --restart --seeds 2", 0.5),
        Command("train-set", "train {model} --device cpu --epochs 0.05 --restart --set train.lr=0.2 --json", 0.5),
        Command("export-onnx", "export {model} --format onnx", 2.5),
        Command("export-coreml", "export {model} --format coreml", 2.5),
        Command("export-coreml-tensor", "export {model} --format coreml --input tensor --precision fp32", 0.5),
        Command("export-coreai", "export {model} --format coreai", 1.5),
        Command("export-all", "export {model} --format onnx --format coreml --json", 0.5),
        Command("validate-torch", "validate {model} --limit 20 --runtime torch-cpu", 1.5),
        Command("validate-onnx", "validate {model} --limit 20 --runtime onnxruntime-cpu", 2.5),
        Command("validate-coreml", "validate {model} --limit 20 --runtime coreml-reference", 2),
        Command("validate-coreai", "validate {model} --limit 20 --runtime coreai", 1.5),
        Command("validate-junit", "validate {model} --limit 20 --runtime onnxruntime-cpu --junit {out}/junit.xml --json", 1),
        Command("validate-artifact", "validate {model} --limit 20 --artifact {artifact}", 0.7),
        Command("verify", "verify {model}", 3),
        Command("verify-json", "verify {model} --json", 0.5),
        Command("inspect", "inspect {model}", 2),
        Command("inspect-artifact", "inspect {model}/exports/{artifact}", 4),
        Command("inspect-checkpoint", "inspect {model}/checkpoint --json", 2),
        Command("predict-torch", "predict {model} {picture} {picture}", 2),
        Command("predict-onnx", "predict {model} {picture} --runtime onnxruntime-cpu", 3),
        Command("predict-reference", "predict {model} {picture} --runtime onnx-reference", 0.5),
        Command("predict-coreml", "predict {model} {picture} --runtime coreml-reference --artifact coreml-fp16", 3),
        Command("predict-coreai", "predict {model} {picture} --runtime coreai --json", 2.5),
        Command("bench", "bench {model} --quick --runtime torch-cpu", 0.5),
        Command("bench-onnx", "bench {model} --quick --runtime onnxruntime-cpu", 0.7),
        Command("bench-file", "bench {file} --quick --out {out}/bench.json", 1.5),
        Command("bench-own-file", "bench {model}/exports/{artifact}/{entry} --quick --out {out}/bench.json", 1.2),
        Command("report", "report {model}", 3),
        Command("report-json", "report {model} --json", 0.5),
        Command("report-bench", "report {model}/reports/bench.json", 1),
        Command("debug-onnx", "debug onnx-fp32 --model {model}", 1),
        Command("debug-coreml", "debug coreml-fp16 --model {model}", 1),
        Command("debug-coreai", "debug coreai-fp32 --model {model}", 0.7),
        Command("hazards", "validate {model} --hazards --limit 4", 0.5),
        Command("doctor", "doctor", 0.3),
        Command("doctor-mps", "doctor --mps {model}", 0.3),
    )
}
ENTRIES = {"onnx-fp32": "model.onnx", "coreml-fp16": "model.mlpackage", "coreai-fp32": "model.aimodel"}


def draw(rng: random.Random, only: list[str]) -> Command:
    """One of those whose name begins with a word of `only`, or of all."""
    chosen = [each for each in COMMANDS.values() if not only or any(each.name.startswith(word) for word in only)]
    return rng.choices(chosen, [each.weight for each in chosen])[0]


def words_of(command: Command, scene: Scene) -> list[str]:
    """The words of its command line, in this scene."""
    rng = scene.rng
    artifact = rng.choice(list(ENTRIES))
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
