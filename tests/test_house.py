"""The rules of the house: imports point one way, files stay short, and no file knows the machine it was written on."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "toolkit"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Each imports those before it alone.
LOWEST = ("lazy", "errors", "printable", "limits", "files", "signals", "progress", "tensors", "disks", "workers")
BASE = (
    "archives", "recipe", "scratch", "writing", "workspace", "devices", "checkpoint", "artifact", "gates", "records",
    "environment", "ranks", "_torchvision",
)  # fmt: skip
LEVELS = (  # a room may import itself and the levels before its own
    *((room,) for room in LOWEST),
    BASE,  # among these: only without going round in a circle
    ("data", "networks", "mil"),
    ("runtimes",),
    ("selection", "golden"),
    ("training", "export", "validation", "bench", "predict", "inspection"),
    ("debug",),
    ("faults",),
    ("doctor",),
    ("report",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
OF_MIL = ("errors", "limits", "files")  # so that the evaluator could leave home as a package of its own
MOST_LINES = 400
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".jsonl", ".html", ".sh", ".cfg", ".csv", ".svg", ""}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    """Rooms of the toolkit that a module imports anywhere, inside functions too; not what is only for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import names its room in full"
            names = [f"toolkit.{alias.name}" for alias in node.names] if node.module == "toolkit" else [node.module]
        else:
            continue
        yield from (parts[1] for name in names if (parts := name.split("."))[0] == "toolkit" and len(parts) > 1 and parts[1] in LEVEL)


def faults(room: str, text: str) -> list[str]:
    """Imports of a module of that room that point the wrong way."""
    found = []
    for other in imported_rooms(ast.parse(text)):
        allowed = other in OF_MIL if room == "mil" else LEVEL[other] < LEVEL[room] or (room in BASE and other in BASE)
        if other != room and not allowed:
            found.append(f"{room} imports {other}")
    return found


def test_every_room_has_a_level():
    assert {room_of(path) for path in SOURCES} - {"__init__", "_models"} <= set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_to_lower_levels_only(path: Path):
    text = path.read_text(encoding="utf-8")
    if path == PACKAGE / "__init__.py":
        assert list(imported_rooms(ast.parse(text))) == []  # everybody imports it, so it imports nobody
    else:
        assert faults(room_of(path), text) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("mil", "from toolkit.tensors import Batch"),
        ("mil", "def f():\n    from toolkit.runtimes import find"),
        ("networks", "from toolkit.data import load"),
        ("data", "import toolkit.networks"),
        ("runtimes", "from toolkit.export import Options"),
        ("training", "from toolkit import validation"),
        ("bench", "from toolkit.report.terminal import show"),
        ("report", "from toolkit import __version__, cli"),
        ("recipe", "from toolkit.data.datasets import DATASETS"),
        ("errors", "import toolkit.doctor as d"),
    ],
)
def test_the_check_finds_an_import_that_points_the_wrong_way(room: str, line: str):
    assert len(faults(room, f"import os\n{line}\n")) == 1


@pytest.mark.parametrize(
    ("room", "line"), [("mil", "from toolkit.errors import DataError"), ("cli", "from toolkit import report, __version__")]
)
def test_the_check_lets_an_import_through_that_points_the_right_way(room: str, line: str):
    assert faults(room, line) == []


def test_the_base_imports_itself_without_going_round_in_a_circle():
    edges = {room: set(imported_rooms(ast.parse((PACKAGE / f"{room}.py").read_text(encoding="utf-8")))) for room in BASE}
    while free := {room for room, others in edges.items() if not others & edges.keys()}:
        edges = {room: others for room, others in edges.items() if room not in free}
    assert edges == {}


def committed() -> list[Path]:
    """What git has, and what it would take: nothing that is built or trained."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file() and path.suffix in TEXT]


HOMES = re.compile(r"(?<![\w.*>})-])/(?:" + "|".join(("work", "home", "opt", "Users", "root", "mnt")) + r")/\w")


def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if HOMES.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["home", "work", "opt", "Users"])
def test_the_check_finds_such_a_folder_and_no_other(folder: str):
    assert HOMES.search(f"see {'/'}{folder}/somebody/x")
    assert not HOMES.search(f"https://example.org/a.b/{'x' + '/'}{folder}/somebody")
    assert not HOMES.search(f"net{folder}/a")


@pytest.mark.parametrize("folder", ["toolkit", "tests", "benchmarks"])
def test_no_file_is_longer_than_can_be_read_in_one_go(folder: str):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_two_test_files_share_a_name():
    """pytest imports them by their name alone, and refuses the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
