"""Let a room import what it offers on first use: a worker then starts without PyTorch where its task does not need it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package. `homes`: module of the package → the names that it offers, with spaces between."""
    found = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(found))}")
        return getattr(import_module(f"{package}.{found[name]}"), name)

    return get
