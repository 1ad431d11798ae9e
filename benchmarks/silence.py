"""Is validation silent where nothing is wrong? Many good models, each with its own seed, trained a few steps, exported and validated.

    python benchmarks/silence.py [--models 50] [--write]

Small networks on the embedded digits, every format and precision, every runtime of this machine. `--write` puts the table
into benchmarks/results. Ends with 1 where a check failed. How close the closest call was is part of the result.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit.environment import describe, in_words
from toolkit.export import Options, export
from toolkit.progress import progress, quietly
from toolkit.recipe import Recipe
from toolkit.training import train
from toolkit.validation import ValidationResult, validate
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RECIPE = """
name = "silence-{seed}"
description = "a good model, to see whether validation keeps silent"
[data]
set = "digits"
[network]
builder = "small-cnn"
[preprocess]
size = {size}
mean = 0.1558
std = 0.2774
[train]
epochs = {epochs}
batch_size = 32
lr = 0.1
schedule = "one-cycle"
seed = {seed}
subset = {subset}
"""


def good_model(folder: Path, seed: int) -> ValidationResult:
    """Some are barely trained, some well; sizes of the resized picture differ as well."""
    folder.mkdir()
    text = RECIPE.format(seed=seed, size=(24, 28, 32, 40)[seed % 4], epochs=1 + seed % 3, subset=(64, 256, 1024, 1437)[seed % 4])
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    workspace = Workspace(folder, folder / "recipe.toml")
    train(workspace, Recipe.read(workspace.recipe), device="cpu")
    export(workspace, ["coreml", "onnx", *(["coreai"] if find_spec("coreai_torch") else [])], Options())
    export(workspace, ["coreml"], Options(precision="fp32", input_kind="tensor"))
    return validate(workspace, isolate=False)


def closest(results: list[ValidationResult]) -> dict[str, dict[str, float]]:
    """artifact on runtime → how much of its gate was used, at most: of the largest logit, and of the predictions changed."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: {"logit": 0.0, "changed": 0, "accuracy": 1.0})
    for result in results:
        for row in result.rows:
            if row.allowed_abs_logit is not None:
                used = found[f"{row.artifact} on {row.runtime}"]
                used["logit"] = max(used["logit"], row.figures.max_abs_logit / row.allowed_abs_logit)
                used["changed"] = max(used["changed"], len(row.changed))
                used["accuracy"] = min(used["accuracy"], row.figures.accuracy)
    return dict(found)


def report(results: list[ValidationResult], used: dict[str, dict[str, float]], command: str) -> str:
    checks = sum(len(result.checks) for result in results)
    breaches = [(result.model, check) for result in results for check in result.breaches]
    lines = [
        f"# Silence where nothing is wrong, {date.today()}", "", f"`{command}`; {in_words(describe())}.", "",
        f"{len(results)} undamaged models of different seeds, from barely trained to well, {checks} checks, {len(breaches)} failed.", "",
        "| artifact and runtime | largest share of the logit gate used | most predictions changed, of 360 | least accurate |",
        "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {name} | {100 * each['logit']:.0f} % | {each['changed']:.0f} | {100 * each['accuracy']:.1f} % |" for name, each in used.items()
    ]
    lines += [
        "",
        *(f"- {model}: {check.artifact} on {check.runtime}: {check.name}: {check.figure}, {check.gate}" for model, check in breaches),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results: list[ValidationResult] = []
    with tempfile.TemporaryDirectory() as folder, progress("good models", options.models, unit="models") as update:
        for seed in range(options.models):
            with quietly():
                results.append(good_model(Path(folder) / str(seed), seed))
            update(seed + 1)
    used = closest(results)
    text = report(results, used, f"python benchmarks/silence.py --models {options.models}")
    print(text)
    if options.write:
        failed: list[Any] = [[result.model, check.model_dump()] for result in results for check in result.breaches]
        RESULTS.joinpath("silence.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("silence.json").write_text(json.dumps({"used": used, "failed": failed}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(result.breaches for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
