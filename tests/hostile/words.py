"""Kinds 8 and 9: words of strangers cannot move the cursor or look like a verdict, and odd names and numbers are one message."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.attack import Attack

CLEAR = "odd \x1b[2J\x1b[1;1H\x9b2J\u202e\r\nPASSED: 999 checks"
VERDICT = r"(?m)^PASSED: 999"
LONG, DIGITS = "n" * 300, "9" * 5000
ONNX = "{model}/exports/onnx-fp32/model.onnx"
TAKING_A_NAME = (
    "inspect {}", "train {}", "export {} --format onnx", "validate {}", "verify {}", "debug {}", "report {}",
    "bench {}.onnx", "predict {} a.png",
)  # fmt: skip
MANIFEST, CARD = "exports/onnx-fp32/manifest.json", "checkpoint/checkpoint.json"


def put(name: str, *keys: str, value: Any = CLEAR) -> Callable[[Path], None]:
    """Sets one value of a JSON file of the model; `keys` lead to it."""

    def plant(model: Path) -> None:
        path = model / name
        content = json.loads(path.read_text(encoding="utf-8"))
        at = content
        for key in keys[:-1]:
            at = at[int(key) if isinstance(at, list) else key]
        at[int(keys[-1]) if isinstance(at, list) else keys[-1]] = value
        path.write_text(json.dumps(content), encoding="utf-8")

    return plant


def named(name: str) -> Callable[[Path], object]:
    """Copies an artifact to a folder of that name."""
    return lambda model: shutil.copytree(model / "exports/onnx-fp32", model / "exports" / name)


def picture(model: Path) -> None:
    from PIL import Image

    Image.new("L", (28, 28)).save(model / "a.png")
    (model / "a.png").rename(model / "\x1b[2JPASSED.png")


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(content)


def described(model: Path) -> None:
    path = model / "recipe.toml"
    text = path.read_text(encoding="utf-8").replace('description = "', 'description = "\\u001b[2J\\r\\nPASSED: 999 checks')
    path.write_text(text, encoding="utf-8")


def with_bom(model: Path) -> None:
    path = model / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def nothing(model: Path) -> None:
    pass


def said(name: str, plant: Callable[[Path], object], command: str, code: int = 2, says: str = "") -> Attack:
    return Attack(name, plant, command, code=code, says=says, unsaid=VERDICT)


INSPECT, CHECKPOINT = "inspect {model}/exports/onnx-fp32", "inspect {model}/checkpoint"
ATTACKS = (
    said("escapes in notes", put(MANIFEST, "notes", value=[CLEAR]), INSPECT, 0, "odd"),
    said("escapes in versions", put(MANIFEST, "versions", "torch"), INSPECT, 0, "odd"),
    said("escapes in the preprocessing", put(MANIFEST, "preprocessing"), INSPECT, 0, "odd"),
    said("escapes in labels", put(MANIFEST, "class_labels", "0"), INSPECT, 0),
    said("escapes in the format", put(MANIFEST, "format"), INSPECT),
    said("escapes in a card's versions", put(CARD, "versions", "torch"), CHECKPOINT, 0, "odd"),
    said("escapes in a card's device", put(CARD, "device"), CHECKPOINT, 0),
    said("escapes in a recipe", described, "inspect {model}", 0),
    said("escapes in what a check says", put("reports/validation.json", "checks", "0", "detail"), "report {model}", 0),
    said("escapes in a row's name", put("reports/validation.json", "rows", "0", "artifact"), "report {model}", 0),
    said("escapes in evidence", put("reports/evidence.json", "model"), "verify {model}", 1),
    said("escapes in evidence's versions", put("reports/evidence.json", "versions", "torch"), "verify {model}", 1),
    said("escapes in evidence's artifacts", put("reports/evidence.json", "artifacts", value={CLEAR: {}}), "verify {model}", 1),
    said("escapes in the name of an artifact", named("onnx\x1b[2J-fp32"), "validate {model} --limit 5 --runtime onnxruntime-cpu", 0),
    said("escapes in a measurement", written("b.json", json.dumps({CLEAR: 1}).encode()), "report {model}/b.json"),
    said("escapes in the name of a picture", picture, "predict {model} '{model}/\x1b[2JPASSED.png' --runtime onnxruntime-cpu", 0),
    *(said(f"a name of 300 characters: {command.split()[0]}", nothing, command.format(LONG)) for command in TAKING_A_NAME),
    said("a picture's name of 300 characters", nothing, "predict {model} " + LONG),
    said("a name that is not UTF-8", nothing, "inspect \udcff", says="not UTF-8"),
    said("a size of 5,000 digits", nothing, f"bench {ONNX} --shape image=1x{DIGITS}", says="each size from 1"),
    said("a newline in --set", nothing, "train {model} --restart --set 'train.lr=0.1\nx=1'", says="a value is one line"),
    said("a recipe with a BOM", with_bom, "inspect {model}", 0),
    said("curves of NaN and 1e400", written("metrics.jsonl", b'{"epoch": NaN}\n{"epoch": 1e400}\n'), "report {model}"),
    said("a measurement of 1e400 seconds", written("b.json", b'{"schema_version": 3, "seconds": 1e400}'), "report {model}/b.json"),
    said("a measurement of nested brackets", written("b.json", b"[" * 100_000), "report {model}/b.json"),
)  # fmt: skip
