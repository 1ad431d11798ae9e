"""What every result is made of: frozen, checked when read, and the same in memory and as JSON."""

import math
import reprlib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import from_json

from toolkit.errors import ToolkitError
from toolkit.files import read_bytes
from toolkit.printable import line

MOST_ROWS = 20  # faults that are listed; a file with more of them is no file of ours
MOST_ENTRIES = 1_000_000  # of a JSON file: each may be a fault, and a fault takes memory
LARGEST = 2**63 - 1

# JSON has no NaN; pydantic would write null, and then not read its own file back. Written as text, read as a number.
Figure = Annotated[
    float, Field(allow_inf_nan=True), PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json")
]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-9)]  # rounding may leave a little more than 1
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Item = TypeVar("Item")
Many = Annotated[list[Item], Field(fail_fast=True)]  # the first fault is enough: a list of millions could hold as many
Record = TypeVar("Record", bound=BaseModel)


class Frozen(BaseModel):
    """No unknown keys, and no number that is not finite, but where `Figure` says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_record(path: Path, kind: type[Record], most_bytes: int, *, raises: type[ToolkitError] = ToolkitError, advice: str = "") -> Record:
    """Read a JSON file of `kind`, which somebody else may have written.

    Raises `raises` for what is no regular file of at most `most_bytes`, or does not hold; `advice`: a sentence that says what to do.
    """
    return record_of(read_bytes(path, most_bytes, raises=raises, advice=advice), path, kind, raises=raises, advice=advice)


def record_of(content: bytes, path: Path, kind: type[Record], *, raises: type[ToolkitError] = ToolkitError, advice: str = "") -> Record:
    """Return what the bytes that were read from `path` hold. Raises as `read_record` does."""
    end = f". {advice}" if advice else ""
    try:
        values = from_json(content, allow_inf_nan=False)  # once: validate_json would make a copy of the values for each fault
        del content
        if (entries := _entries(values)) > MOST_ENTRIES:
            raise ValueError(f"it has more than {MOST_ENTRIES:,} entries ({entries:,})")
        return kind.model_validate(values)
    except ValidationError as error:
        raise raises(f"{path} cannot be read: {'; '.join(fault_rows(error))}{end}") from error
    except (ValueError, RecursionError) as error:  # no JSON, nested too deeply, or a number of thousands of digits
        raise raises(f"{path} cannot be read: {line(error, 200)}{end}") from error


def _entries(values: object) -> int:
    """How many keys and nested values there are, numbers and texts in lists not counted: there are millions of samples."""
    found, left = 0, [values]
    while left and found <= MOST_ENTRIES:
        value = left.pop()
        if isinstance(value, dict):
            found += len(value)
            left += value.values()
        elif isinstance(value, list) and value and isinstance(value[0], dict | list):
            found += len(value)
            left += value
    return found


def fault_rows(error: ValidationError) -> list[str]:
    """A line for each fault: the key, what is wrong with it, and what was seen."""
    rows = []
    faults = error.errors(include_url=False)
    for fault in faults[:MOST_ROWS]:
        key = line(".".join(str(part) for part in fault["loc"]), 200) or "the whole"
        if fault["type"] == "extra_forbidden":
            rows.append(f"{key}: there is no such key; did you misspell it?")
        elif fault["type"] == "missing":
            rows.append(f"{key}: is missing")
        else:
            rows.append(f"{key}: {fault['msg'][0].lower()}{line(fault['msg'][1:], 400)} (got {_seen(fault['input'])})")
    return [*rows, *([f"and {len(faults) - MOST_ROWS} more"] if len(faults) > MOST_ROWS else [])]


def _seen(value: object) -> str:
    """At most 80 characters of it, without making more."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    try:
        return line(short.repr(value), 80)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return "a number of thousands of digits"
