"""A recipe: everything that decides what a model becomes, in one frozen, validated object.

Every number has its unit, bounds and default here and nowhere else. Read from `models/<name>/recipe.toml`; `--set
train.epochs=2` overrides single keys before validation. A recipe that does not hold is one error naming every fault.
"""

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from toolkit.errors import RecipeError
from toolkit.files import read_bytes
from toolkit.limits import MAX_RECIPE_BYTES
from toolkit.printable import line
from toolkit.records import fault_rows

MOST_DEEP = 16  # parts of a dotted key, or brackets within brackets; tomllib takes memory in proportion to the square
MOST_OVERRIDE = 4096  # characters of one --set
_WORDS = re.compile(  # what dots and brackets mean nothing in: texts and comments
    r'"""(?:\\.|[^\\])*?"""|' + r"'''.*?'''" + r'|"(?:\\.|[^"\\\n])*"' + r"|'[^'\n]*'|#[^\n]*", re.DOTALL
)


class Part(BaseModel):
    """A section of a recipe: frozen, no unknown keys, no silent conversion ("3" is not 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _whole(value: float) -> float:
    """2.0 → 2: equal recipes, equal hashes."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, AfterValidator(_whole), PlainSerializer(lambda value: value)]


class Data(Part):
    set: Literal["mnist", "digits"] = Field(description="a name in toolkit/data's DATASETS")


class Network(Part):
    builder: str = Field("resnet18", description="a name in toolkit/networks' NETWORKS")


class Preprocess(Part):
    """Lives inside the model, and so inside every exported file: the app hands over a raw digit, 0..255."""

    size: int = Field(32, ge=8, le=512, description="pixels a side, after the bilinear resize")
    mean: float = Field(0.1307, ge=0, le=1, description="of the training images on a scale of 0..1")
    std: float = Field(0.3081, gt=0, le=1, description="of the training images on a scale of 0..1")


class Train(Part):
    epochs: Number = Field(10, gt=0, le=10_000, description="a fraction ends within an epoch: 0.1 visits a tenth of the images once")
    batch_size: int = Field(64, ge=2, le=65_536, description="images; 2 at the least, for batch-norm")
    lr: float = Field(0.01, gt=0, le=10, description="learning rate; the peak of a one-cycle schedule")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0, le=1)
    decay_all: bool = Field(True, description="false: no weight decay on biases and on batch-norm's scale and shift")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    schedule: Literal["constant", "one-cycle"] = "constant"
    warmup: float = Field(0.3, gt=0, lt=1, description="share of the steps before a one-cycle schedule's peak")
    shift: int = Field(0, ge=0, le=8, description="pixels: random translation, filled with background")
    rotate: float = Field(0.0, ge=0, le=45, description="degrees: random rotation each way")
    scale: float = Field(0.0, ge=0, lt=0.5, description="share of 1: random size, from 1 - scale to 1 + scale")
    shear: float = Field(0.0, ge=0, le=30, description="degrees: random slant each way")
    plain_end: float = Field(0.0, ge=0, le=1, description="share of the steps, at the end, that take the images as they are")
    flip: bool = Field(False, description="random horizontal flips; they turn most digits into non-digits")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of weights and batch-norm statistics; 0: the last weights")
    autocast: Literal["auto", "bf16", "off"] = Field("off", description="auto: bf16 where the hardware multiplies it")
    channels_last: Literal["auto", "on", "off"] = Field("off", description="auto: where it is known to be faster")
    seed: int = Field(0, ge=0, lt=2**31)
    subset: int | None = Field(None, ge=16, description="train on the first N images only: for smoke runs")
    holdout: int = Field(0, ge=0, description="training images, evenly over the classes, that are kept out to choose things by")
    until_accuracy: float | None = Field(None, gt=0, le=1, description="stop once that share of the held-out images is right")


class Gate(Part):
    """What an exported artifact may differ by from PyTorch fp32 on the CPU. None: derived from format and network (gates.py)."""

    max_changed: int | None = Field(None, ge=0, description="predictions that may differ at all, for each 10,000 images (rounded up)")
    max_abs_logit: float | None = Field(None, gt=0, description="largest |logit - logit of PyTorch|")
    min_snr_db: float | None = Field(None, gt=0, description="signal to noise of the logits, in decibel")
    max_accuracy_loss: float | None = Field(None, ge=0, le=1, description="share of 1: a larger loss must be ruled out, at 95 %")


class Gates(Part):
    """By what an artifact is computed in; `compressed` for all whose weights are quantised, palettized or pruned."""

    fp32: Gate = Gate()
    fp16: Gate = Gate()
    bf16: Gate = Gate()
    compressed: Gate = Gate(max_accuracy_loss=0.01)

    def of(self, precision: str) -> Gate:
        gate = getattr(self, precision, None)
        if not isinstance(gate, Gate):
            raise RecipeError(f"the recipe has no gate for precision {precision!r}; it has {', '.join(Gates.model_fields)}")
        return gate


class Publish(Part):
    """What the metadata of an exported file says."""

    author: str = "the toolkit's authors"
    license: str = "Apache-2.0"
    version: str = "1.0"
    minimum_target: Literal["iOS15", "iOS16", "iOS17", "iOS18"] = Field("iOS17", description="oldest system of a Core ML file")


class Recipe(Part):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = Field(max_length=500)
    data: Data
    network: Network = Network()
    preprocess: Preprocess = Preprocess()
    train: Train = Train()
    gates: Gates = Gates()
    publish: Publish = Publish()

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON: equal recipes, equal hashes, whatever the order of keys in the file.

        Of what differs from the defaults: a later toolkit, with more keys, gives an older recipe the same hash. Without the
        gates: they judge a model, and do not change what it becomes.
        """
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"gates"})
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path, overrides: Iterable[str] = ()) -> "Recipe":
        """The recipe in a TOML file, with `section.key=value` overrides. Raises RecipeError naming every fault."""
        content = read_bytes(path, MAX_RECIPE_BYTES, raises=RecipeError, advice="Give a folder whose recipe.toml is a page of text")
        try:
            values = _parsed(content.decode("utf-8-sig"))  # some editors begin a file with a mark of its encoding
        except ValueError as error:  # also a number of 5,000 digits
            raise RecipeError(f"{path} is not valid TOML: {error}") from error
        for override in overrides:
            _apply(values, override)
        return cls.from_values(values, source=str(path))

    @classmethod
    def from_values(cls, values: Any, source: str) -> "Recipe":
        """A recipe from plain values (TOML or a checkpoint's JSON)."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(_faults(error, source)) from error


def _apply(values: dict[str, Any], override: str) -> None:
    """Sets `section.key=value` in nested tables; the value is read as TOML, and as plain text where it is none."""
    if len(override) > MOST_OVERRIDE or not override.isprintable():
        raise RecipeError(
            f"--set {line(override, 80)!r}: a value is one line of at most {MOST_OVERRIDE} characters that can be printed, not this one"
        )
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not all((*sections, last)) or len(sections) >= MOST_DEEP:
        raise RecipeError(f"--set {override!r} is not of the form section.key=value, for example train.epochs=2")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override!r}: {section!r} is a value, not a section")
    try:
        values[last] = _parsed(f"value = {text}")["value"]
    except ValueError:
        values[last] = text.strip()


def _parsed(text: str) -> dict[str, Any]:
    """Raises ValueError for what is no TOML, or nested deeper than a recipe ever is."""
    bare = _WORDS.sub("", text)
    dots = max(part.count(".") for part in re.split(r"[=\[\]{},\n]", bare))
    depth = max(itertools.accumulate((sign in "[{") - (sign in "]}") for sign in re.findall(r"[\[\]{}]", bare)), default=0)
    if max(dots + 1, depth) > MOST_DEEP:
        raise ValueError(f"a key of {dots + 1} parts, or {depth} brackets within brackets; at most {MOST_DEEP} are read")
    return tomllib.loads(text)


def _faults(error: ValidationError, source: str) -> str:
    rows = fault_rows(error)
    count = f"{len(rows)} fault" + ("s" if len(rows) > 1 else "")
    return f"the recipe in {source} has {count}:\n  " + "\n  ".join(rows)
