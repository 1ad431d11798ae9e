"""Recipes: what holds is frozen and hashed, what does not is one error naming every fault."""

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from toolkit.errors import RecipeError
from toolkit.limits import MAX_RECIPE_BYTES
from toolkit.networks import NETWORKS
from toolkit.recipe import Recipe
from toolkit.workspace import shipped_folder

SHIPPED = sorted(shipped_folder().glob("*/recipe.toml"))
SMALLEST = 'name = "a"\ndescription = "b"\n[data]\nset = "digits"\n'


def read(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    return Recipe.read(tmp_path / "recipe.toml", overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text, *overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_recipe_loads_and_is_named_as_its_folder(path: Path):
    recipe = Recipe.read(path)
    assert recipe.name == path.parent.name
    assert recipe.network.builder in NETWORKS


def test_there_are_shipped_recipes():
    assert {"resnet18-mnist", "resnet18-mnist-paper", "resnet18-mnist-sprint", "resnet18-digits"} <= {path.parent.name for path in SHIPPED}


def test_the_paper_recipe_is_the_reported_experiment():
    recipe = Recipe.read(shipped_folder() / "resnet18-mnist-paper" / "recipe.toml")
    train = recipe.train.model_dump()
    assert recipe.data.set == "mnist"
    assert recipe.preprocess.model_dump() == {"size": 32, "mean": 0.1307, "std": 0.3081}
    expected = {"batch_size": 64, "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "epochs": 10, "flip": True}
    plain = {"nesterov": False, "label_smoothing": 0.0, "schedule": "constant", "shift": 0, "autocast": "off", "subset": None}
    assert {key: train[key] for key in (*expected, *plain)} == expected | plain


def test_several_faults_are_named_in_one_message(tmp_path: Path):
    text = SMALLEST + '[train]\nepoch = 3\nepochs = "3"\nlr = 11.0\nmomentum = 1.0\nflip = 1\n[gates.fp32]\nmax_abs_logit = 0.0\n'
    message = refused(tmp_path, text)
    assert "has 6 faults" in message
    assert str(tmp_path / "recipe.toml") in message
    assert "train.epoch: there is no such key" in message
    assert "train.epochs: input should be a valid number (got '3')" in message
    assert "train.lr: input should be less than or equal to 10 (got 11.0)" in message
    assert "train.momentum: input should be less than 1" in message
    assert "train.flip: input should be a valid boolean (got 1)" in message
    assert "gates.fp32.max_abs_logit: input should be greater than 0" in message


def test_one_fault_is_counted_in_the_singular(tmp_path: Path):
    assert "has 1 fault:" in refused(tmp_path, SMALLEST, "train.epochs=0")


@pytest.mark.parametrize(
    "line",
    [
        "train.epochs=0", 'train.epochs="3"', "train.epochs=true", "train.lr='0.1'", "train.nesterov=1", "train.schedule=cosine",
        "name=3", "data.set=imagenet", "preprocess.size=7", "preprocess.size=513", "train.batch_size=1", "train.subset=15", "train.seed=-1",
        "train.seed=2147483648", "preprocess.std=0.0", "train.warmup=0.0", "publish.minimum_target=iOS14", "name=../up", "name=", "train=3",
    ],
)  # fmt: skip
def test_values_are_bounded_and_never_converted(tmp_path: Path, line: str):
    assert "has 1 fault:" in refused(tmp_path, SMALLEST, line)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("key", ["train.lr", "train.weight_decay", "preprocess.mean", "preprocess.std"])
def test_nan_and_infinity_are_refused(tmp_path: Path, key: str, value: str):
    message = refused(tmp_path, SMALLEST, f"{key}={value}")
    assert f"{key}: input should be a finite number (got {value})" in message


def test_a_whole_number_is_a_fine_float(tmp_path: Path):
    assert read(tmp_path, SMALLEST, "train.lr=1").train.lr == 1.0


@pytest.mark.parametrize(
    "text",
    ["name = ", "=", "a = 1\na = 2", "a = " + 5000 * "9", "a = " + 20_000 * "[" + 20_000 * "]"],
    ids=["no value", "no key", "twice", "a number beyond Python's limit", "nested deeply"],
)
def test_text_that_is_no_toml_is_an_error_naming_the_file(tmp_path: Path, text: str):
    message = refused(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'recipe.toml'} is not valid TOML: ")


def test_bytes_that_are_no_text_are_an_error_naming_the_file(tmp_path: Path):
    (tmp_path / "recipe.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match=r"recipe\.toml is not valid TOML"):
        Recipe.read(tmp_path / "recipe.toml")


@pytest.mark.parametrize("there", [False, True], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_an_error_naming_it(tmp_path: Path, there: bool):
    if there:
        (tmp_path / "recipe.toml").mkdir()
    with pytest.raises(RecipeError, match=r"recipe\.toml cannot be read: (No such file|it is a folder)"):
        Recipe.read(tmp_path / "recipe.toml")


def test_a_file_that_is_larger_than_any_recipe_is_not_parsed(tmp_path: Path):
    text = SMALLEST + "#" * MAX_RECIPE_BYTES
    assert f"it has {len(text):,} bytes; at most {MAX_RECIPE_BYTES:,} are read" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("train.epochs=2", lambda recipe: recipe.train.epochs == 2),
        (" train.epochs =  2 ", lambda recipe: recipe.train.epochs == 2),
        ("train.nesterov=true", lambda recipe: recipe.train.nesterov is True),
        ("train.lr=1e-3", lambda recipe: recipe.train.lr == 0.001),
        ("train.schedule=one-cycle", lambda recipe: recipe.train.schedule == "one-cycle"),
        ("train.schedule='one-cycle'", lambda recipe: recipe.train.schedule == "one-cycle"),
        ("description=a = b, and c", lambda recipe: recipe.description == "a = b, and c"),
        ("publish.version='2.0'", lambda recipe: recipe.publish.version == "2.0"),
        ("train={epochs = 7}", lambda recipe: recipe.train.epochs == 7),
        ("gates.fp16.max_changed=9", lambda recipe: recipe.gates.fp16.max_changed == 9),
    ],
)
def test_set_reads_toml_values_and_plain_text(tmp_path: Path, override: str, found):
    gate = "[gates.fp16]\nmax_changed = 1\nmax_abs_logit = 0.5\n"
    assert found(read(tmp_path, SMALLEST + gate, override))


def test_the_last_of_two_settings_of_one_key_holds(tmp_path: Path):
    assert read(tmp_path, SMALLEST, "train.epochs=2", "train.epochs=3").train.epochs == 3


@pytest.mark.parametrize("override", ["train.epochs", "", "=", "=2", "train.=2", ".epochs=2", "train..epochs=2"])
def test_a_setting_of_another_form_is_an_error_with_an_example(tmp_path: Path, override: str):
    message = refused(tmp_path, SMALLEST, override)
    assert message == f"--set {override!r} is not of the form section.key=value, for example train.epochs=2"


def test_a_setting_below_a_value_says_that_it_is_no_section(tmp_path: Path):
    assert refused(tmp_path, SMALLEST, "name.first=2") == "--set 'name.first=2': 'name' is a value, not a section"


@pytest.mark.parametrize("value", [4060 * "9", 4060 * "["])
def test_a_setting_that_breaks_the_toml_parser_is_taken_as_text_and_shown_shortened(tmp_path: Path, value: str):
    message = refused(tmp_path, SMALLEST, f"train.epochs={value}")
    assert "train.epochs: " in message
    assert len(message) < 500


def test_a_misspelt_setting_is_named(tmp_path: Path):
    assert "trian: there is no such key; did you misspell it?" in refused(tmp_path, SMALLEST, "trian.epochs=2")


def test_a_recipe_cannot_be_changed(tmp_path: Path):
    recipe = read(tmp_path, SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.epochs = 3


def test_the_hash_does_not_depend_on_the_order_of_keys(tmp_path: Path):
    one = read(tmp_path, SMALLEST + "[train]\nepochs = 2\nlr = 0.5\n[preprocess]\nsize = 16\n")
    other = read(
        tmp_path, 'description = "b"\nname = "a"\n[preprocess]\nsize = 16\n[train]\nlr = 0.5\nepochs = 2\n[data]\nset = "digits"\n'
    )
    assert one.hash == other.hash


def test_the_hash_is_the_same_when_defaults_are_written_out(tmp_path: Path):
    recipe = read(tmp_path, SMALLEST)
    written = Recipe.from_values(recipe.model_dump(mode="json"), "a checkpoint")
    assert written == recipe
    assert written.hash == recipe.hash


def test_the_hash_is_sha256_of_canonical_json_and_stays_so(tmp_path: Path):
    canonical = '{"data":{"set":"digits"},"description":"b","name":"a","train":{"epochs":2}}'
    assert read(tmp_path, SMALLEST, "train.epochs=2").hash == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "override", ["train.epochs=2", "name=c", "data.set=mnist", "train.seed=1", "preprocess.mean=0.2", "publish.version='2'"]
)
def test_the_hash_changes_with_a_value(tmp_path: Path, override: str):
    assert read(tmp_path, SMALLEST).hash != read(tmp_path, SMALLEST, override).hash


def test_gates_are_found_by_precision_and_an_unknown_one_lists_them(tmp_path: Path):
    gates = read(tmp_path, SMALLEST).gates
    assert gates.of("fp32") is gates.fp32
    for name in ("fp8", "of", "model_config"):
        with pytest.raises(RecipeError, match=r"no gate for precision .*; it has fp32, fp16"):
            gates.of(name)


def test_plain_values_that_are_no_table_are_refused():
    with pytest.raises(RecipeError, match="the recipe in somewhere has 1 fault"):
        Recipe.from_values([1, 2], "somewhere")
