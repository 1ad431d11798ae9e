"""Results on the terminal: a table for people, JSON for programs. One renderer for each type of result."""

import dataclasses
import json as json_module
from typing import Any

from pydantic import BaseModel


def show(result: Any, as_json: bool) -> None:
    """Prints a result to standard output."""
    if as_json:
        print(json_module.dumps(plain(result), indent=1))
    else:
        print(result)


def plain(value: Any) -> Any:
    """The value as JSON has it: dataclasses and models as objects, paths as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
