"""What pyproject.toml says is what is there."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_recipe_is_in_the_wheel_where_the_workspace_looks(project):
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    recipes = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("models/*/recipe.toml")}
    assert recipes
    assert {source: target for source, target in included.items() if source.startswith("models/")} == {
        recipe: f"toolkit/_models/{Path(recipe).parent.name}/recipe.toml" for recipe in recipes
    }


def test_every_file_that_is_put_into_the_wheel_is_there(project):
    for source in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / source).is_file()


def test_the_source_archive_has_what_the_tests_and_the_build_need(project):
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"toolkit", "tests", "models/*/recipe.toml", project["project"]["readme"], *project["project"]["license-files"]} <= set(included)


def test_the_version_is_the_packages(project):
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "toolkit/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", toolkit.__version__)


def test_the_command_is_the_function_it_names(project):
    from toolkit.cli import main

    assert project["project"]["scripts"] == {"toolkit": "toolkit.cli:main"}
    (command,) = [each for each in entry_points(group="console_scripts") if each.name == "toolkit"]
    assert command.load() is main


def test_every_dependency_has_a_lower_bound_or_is_pinned(project):
    extras = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    for line in (*project["project"]["dependencies"], *extras):
        assert re.match(r"[\w-]+(>=|==)\d", line), line


def test_every_dependency_is_in_the_tried_set_within_its_bounds(project):
    from packaging.requirements import Requirement

    tried = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    tried = {name.lower().replace("_", "-"): version.split(";")[0].split("#")[0].strip() for name, version in tried.items()}
    for line in project["project"]["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(tried[requirement.name]), line
