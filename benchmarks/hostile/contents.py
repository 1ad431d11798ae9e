"""Mutators of what is in a file: bytes, JSON, TOML, archives, safetensors, protobufs, words of strangers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fuzz import damage_bytes
from benchmarks.hostile.places import below, everything
from benchmarks.hostile.scene import Scene

ESCAPES = (
    "\x1b[2J\x1b[H\x1b[1;32mPASSED\x1b[0m", "\u202e", "a\nb\r", "\x00", "\x07", "\ud800", "<script>alert(1)</script>", "[bold]x[/]",
    "]]>", "x" * 100_000, "`|*", "", "\u2028", "../../home/Documents", "{model}", "nan", "{" * 2000,
)  # fmt: skip
VALUES = (
    "1e400", "-1e400", "NaN", "Infinity", "1" * 5000, "-1", "0", "null", "true", '""', "[]", "{}", "1e308", "0.5", "[" * 5000,
    "[" * 100_000 + "]" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, str(2**63), str(2**31), "9" * 400 + "." + "9" * 400,
)  # fmt: skip
BOMBS: dict[str, Callable[[], str]] = {
    "dotted keys": lambda: ".".join("a" * 30_000) + " = 1\n",
    "nested arrays": lambda: "a = " + "[" * 30_000 + "]" * 30_000,
    "nested tables": lambda: "a = " + "{a=" * 5_000 + "1" + "}" * 5_000,
    "many keys": lambda: "".join(f"[t{k}]\nx = {k}\n" for k in range(50_000)),
    "many values": lambda: "\n".join(f"k{k} = {k}" for k in range(100_000)),
    "long string": lambda: 'name = "' + "x" * 3_000_000 + '"',
    "long number": lambda: "a = " + "9" * 100_000,
    "large": lambda: "#" * (80 << 20),
}
KEYS = (
    "train.epochs", "train.batch_size", "train.lr", "train.seed", "train.subset", "train.warmup", "train.schedule", "preprocess.size",
    "preprocess.mean", "preprocess.std", "data.set", "network.builder", "name", "gates.fp32.max_abs_logit",
)  # fmt: skip
TOML_VALUES = (
    "1e400", "nan", "inf", "-1", "0", "1e-320", "999999999999999999999", '"\\u001b[2J"', '"mnist"', '"../../x"', "true", "[]", "{}",
    "1979-05-27", "1_000_000", "0x10", '"' + "x" * 5000 + '"', "2147483648", '"\\u202e"', "1e300", '"resnet18"',
)  # fmt: skip


def any_bytes(scene: Scene) -> str:
    """Bits flipped, bytes spliced in or cut out, of any file."""
    path = scene.rng.choice(everything(scene, files_only=True))
    path.write_bytes(damage_bytes(path.read_bytes(), scene.rng))
    return named(scene, path)


def named(scene: Scene, path: Path) -> str:
    return str(path.relative_to(scene.model))


def one_of(scene: Scene, *patterns: str) -> Path:
    """A file of those kinds, or the recipe; mostly one that the command reads."""
    for files in (everything(scene, files_only=True), below(scene.model, files_only=True)):
        if found := [path for path in files if any(path.match(pattern) for pattern in patterns)]:
            return scene.rng.choice(found)
    return scene.model / "recipe.toml"


def json_values(scene: Scene) -> str:
    """Some values of a JSON file become numbers, words or nesting that nobody expects."""
    path = one_of(scene, "*.json", "*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
    at = scene.rng.randrange(len(lines)) if lines else 0
    changed = []
    try:
        content = json.loads(lines[at])
    except (ValueError, IndexError, RecursionError):
        return any_bytes(scene)
    slots = list(_slots(content))
    raw: dict[str, str] = {}
    for _ in range(scene.rng.choice((1, 1, 2, 3))):
        if not slots:
            break
        holder, key = scene.rng.choice(slots)
        mark = f"@@{len(raw)}@@"
        if scene.rng.random() < 0.5:
            raw[f'"{mark}"'] = scene.rng.choice(VALUES)
        else:
            raw[f'"{mark}"'] = json.dumps(scene.rng.choice(ESCAPES))
        holder[key] = mark
        changed.append(f"{key} = {raw[f'{chr(34)}{mark}{chr(34)}'][:40]}")
    text = json.dumps(content)
    for mark, value in raw.items():
        text = text.replace(mark, value)
    lines[at] = text
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"{named(scene, path)}: {', '.join(changed)}"


def _slots(value: Any) -> Any:
    """Every (holder, key) of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 50)) if isinstance(value, list) else ():
        yield value, key
        yield from _slots(value[key])


def json_shape(scene: Scene) -> str:
    """A byte order mark, duplicate keys, a key less, a key more, NUL, nothing but brackets."""
    path, rng = one_of(scene, "*.json", "*.jsonl"), scene.rng
    data = path.read_bytes()
    how = rng.choice(["mark", "duplicate", "less", "more", "nul", "brackets", "utf-16", "latin-1", "scalar", "huge"])
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if how == "mark":
        data = b"\xef\xbb\xbf" + data
    elif how == "duplicate":
        data = data.replace(b"{", b'{"schema_version": 9, "name": "twice", ', 1)
    elif how in ("less", "more") and isinstance(content, dict) and content:
        if how == "less":
            del content[rng.choice(list(content))]
        else:
            content[rng.choice(ESCAPES)] = 1
        data = json.dumps(content).encode()
    elif how == "brackets":
        data = b"[" * 200_000
    elif how == "utf-16":
        data = data.decode("utf-8", "replace").encode("utf-16")
    elif how == "latin-1":
        data += b"\xe9\xff"
    elif how == "scalar":
        data = rng.choice([b"null", b"1", b'"x"', b"[]", b"{}", b"NaN"])
    elif how == "huge":
        data += b" " * (rng.choice([1, 20, 300]) << 20)
    else:
        data = data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]
    path.write_bytes(data)
    return f"{named(scene, path)}: {how}"


def recipe_values(scene: Scene) -> str:
    """A recipe with one value that nobody expects."""
    key, value = scene.rng.choice(KEYS), scene.rng.choice(TOML_VALUES)
    path = scene.model / "recipe.toml"
    section, _, name = key.rpartition(".")
    text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(f"{name} ="))
    if section and f"[{section}]" in text:
        text = text.replace(f"[{section}]", f"[{section}]\n{name} = {value}", 1)
    else:
        text = f"{text}\n[{section}]\n{name} = {value}\n" if section else f"{name} = {value}\n{text}"
    path.write_text(text, encoding="utf-8")
    return f"{key} = {value[:40]}"


def recipe_bomb(scene: Scene) -> str:
    name = scene.rng.choice(list(BOMBS))
    path = scene.model / "recipe.toml"
    path.write_text(BOMBS[name]() if scene.rng.random() < 0.5 else path.read_text(encoding="utf-8") + BOMBS[name](), encoding="utf-8")
    return name


def swapped(scene: Scene) -> str:
    """Two files of the model change places: each is a good file, of another kind."""
    first, second = scene.rng.choice(everything(scene, files_only=True)), scene.rng.choice(below(scene.model, files_only=True))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return f"{named(scene, first)} and {named(scene, second)}"


def spliced(scene: Scene) -> str:
    """The start of one file and the end of another."""
    first, second = scene.rng.choice(everything(scene, files_only=True)), scene.rng.choice(below(scene.model, files_only=True))
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2] + second.read_bytes()[: 1 << 20])
    return f"{named(scene, first)} and {named(scene, second)}"
