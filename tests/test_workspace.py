"""Where things lie, and that what is written takes its place whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import RecipeError, ToolkitError
from toolkit.workspace import DEFAULT_MODEL, Workspace, known_models, models_folder, replacing_folder, shipped_folder, write_text


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test here runs in an empty folder, without the variable."""
    monkeypatch.delenv("TOOLKIT_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("", encoding="utf-8")
    return folder


def test_a_model_is_found_by_name_under_models(elsewhere: Path):
    make(elsewhere / "models" / "mine")
    assert Workspace.of("mine") == Workspace(Path("models/mine"), Path("models/mine/recipe.toml"))


def test_a_model_is_found_by_path_with_or_without_a_slash_at_the_end(elsewhere: Path):
    folder = make(elsewhere / "some" / "where")
    assert Workspace.of("some/where/").recipe == Path("some/where/recipe.toml")
    assert Workspace.of(str(folder)) == Workspace(folder, folder / "recipe.toml")


def test_the_folder_itself_and_the_one_above_are_paths(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(make(elsewhere / "mine"))
    assert Workspace.of(".").recipe == Path("recipe.toml")
    (elsewhere / "mine" / "below").mkdir()
    monkeypatch.chdir(elsewhere / "mine" / "below")
    assert Workspace.of("..").recipe == Path("../recipe.toml")


def test_the_variable_names_the_folder_of_models(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLKIT_MODELS", str(elsewhere / "other"))
    make(elsewhere / "other" / "mine")
    assert Workspace.of("mine").folder == elsewhere / "other" / "mine"
    assert "mine" in known_models()


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLKIT_MODELS", "")
    assert models_folder() == Path("models")


def test_a_shipped_recipe_is_found_from_any_folder_and_the_rest_is_written_here():
    workspace = Workspace.of(DEFAULT_MODEL)
    assert workspace.recipe == shipped_folder() / DEFAULT_MODEL / "recipe.toml"
    assert workspace.recipe.is_file()
    assert workspace.folder == Path("models") / DEFAULT_MODEL
    assert not workspace.folder.exists()


def test_a_recipe_of_ones_own_goes_before_the_shipped_one_of_the_same_name(elsewhere: Path):
    make(elsewhere / "models" / DEFAULT_MODEL)
    assert Workspace.of(DEFAULT_MODEL).recipe == Path("models") / DEFAULT_MODEL / "recipe.toml"


def test_recipes_in_the_wheel_go_before_those_of_a_source_tree(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    import toolkit.workspace as module

    inside = make(elsewhere / "site" / "toolkit" / "_models" / "packed").parent
    monkeypatch.setattr(module, "__file__", str(elsewhere / "site" / "toolkit" / "workspace.py"))
    assert shipped_folder() == inside
    assert known_models() == ["packed"]


@pytest.mark.parametrize("name", ["nothing", ""])
def test_an_unknown_name_lists_the_models_there_are(elsewhere: Path, name: str):
    make(elsewhere / "models" / "mine")
    with pytest.raises(RecipeError, match=f"there is no model named {name!r} in models .*: mine, .*{DEFAULT_MODEL}"):
        Workspace.of(name)


@pytest.mark.parametrize("path", ["..", "../nothing", "nothing/"])
def test_a_path_without_a_recipe_lists_the_models_there_are(path: str):
    with pytest.raises(RecipeError, match=f"is no model: it has no recipe.toml.*{DEFAULT_MODEL}"):
        Workspace.of(path)


def test_everything_of_a_model_lies_below_its_folder():
    workspace = Workspace(Path("a"), Path("b/recipe.toml"))
    found = (workspace.checkpoint, workspace.metrics, workspace.exports, workspace.reports)
    assert [str(path) for path in found] == ["a/checkpoint", "a/metrics.jsonl", "a/exports", "a/reports"]


def test_a_replaced_folder_holds_the_new_files_and_none_of_the_old(elsewhere: Path):
    target = make(elsewhere / "checkpoint")
    with replacing_folder(target) as fresh:
        (fresh / "new").write_text("1", encoding="utf-8")
        assert (target / "recipe.toml").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


def test_a_folder_that_was_not_there_is_made_with_its_parents(elsewhere: Path):
    with replacing_folder(Path("a/b/c")) as fresh:
        (fresh / "new").touch()
    assert (elsewhere / "a" / "b" / "c" / "new").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_nothing_else(elsewhere: Path, error: type[BaseException]):
    target = make(elsewhere / "checkpoint")

    def fill() -> None:
        with replacing_folder(target) as fresh:
            (fresh / "half").touch()
            raise error

    with pytest.raises(error):
        fill()
    assert [path.name for path in target.iterdir()] == ["recipe.toml"]
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved_in(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    target = make(elsewhere / "checkpoint")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if to == target and not self.name.endswith(".old"):
            raise OSError("the disk is gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="the disk is gone"), replacing_folder(target) as fresh:
        (fresh / "new").touch()
    assert [path.name for path in target.iterdir()] == ["recipe.toml"]
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


def test_a_linked_folder_is_replaced_where_it_lies_and_stays_a_link(elsewhere: Path):
    make(elsewhere / "disk" / "checkpoint")
    link = elsewhere / "checkpoint"
    link.symlink_to(elsewhere / "disk" / "checkpoint")
    with replacing_folder(link) as fresh:
        (fresh / "new").touch()
    assert link.is_symlink()
    assert [path.name for path in link.iterdir()] == ["new"]
    assert [path.name for path in (elsewhere / "disk").iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("target", ["file/a", "file/a/b"])
def test_a_place_that_cannot_be_written_is_an_error_naming_it(elsewhere: Path, target: str):
    (elsewhere / "file").touch()
    message = r"cannot write to .*file.*: (Not a directory|File exists)\. Name another place.*TOOLKIT_MODELS"
    with pytest.raises(ToolkitError, match=message), replacing_folder(Path(target)):
        pytest.fail("the block must not run")
    with pytest.raises(ToolkitError, match=message):
        write_text(Path(target), "text")


def test_a_written_text_replaces_the_old_one_and_leaves_nothing_else(elsewhere: Path):
    target = elsewhere / "reports" / "a.json"
    write_text(target, "one")
    write_text(target, "zwei äöü ×")
    assert target.read_text(encoding="utf-8") == "zwei äöü ×"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(elsewhere: Path):
    target = elsewhere / "a.json"
    write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "half \ud800")
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in elsewhere.iterdir()] == ["a.json"]


def test_a_text_never_replaces_a_folder(elsewhere: Path):
    (elsewhere / "a.json").mkdir()
    with pytest.raises(ToolkitError, match=r"cannot write to .*a\.json: Is a directory"):
        write_text(elsewhere / "a.json", "text")
    assert [path.name for path in elsewhere.iterdir()] == ["a.json"]


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_folder(elsewhere: Path):
    target = make(elsewhere / "checkpoint")
    program = (
        "import os, sys; from pathlib import Path; from toolkit.workspace import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as fresh:\n    (fresh / 'half').touch(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)], check=False).returncode == 9
    assert [path.name for path in target.iterdir()] == ["recipe.toml"]


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Every file and folder in it: a power cut after the renaming must not leave empty files under the new name."""
    synced: list[int] = []
    real_fsync, real_rename = os.fsync, Path.rename
    before_renaming: list[set[int]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino) or real_fsync(number))
    monkeypatch.setattr(Path, "rename", lambda self, to: before_renaming.append(set(synced)) or real_rename(self, to))
    with replacing_folder(tmp_path / "checkpoint") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("w")
        (folder / "card").write_text("c")
    target = tmp_path / "checkpoint"
    assert {path.stat().st_ino for path in (target, *target.rglob("*"))} <= before_renaming[0]
