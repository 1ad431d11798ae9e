"""Where things lie, and that what is written takes its place whole or not at all."""

from pathlib import Path

import pytest

from toolkit.errors import RecipeError
from toolkit.workspace import DEFAULT_MODEL, Workspace, known_models, models_folder, shipped_folder


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
