"""Which cases run: a seeded sample of each test function, the same in every process, cut into parts."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # functions as parameters have theirs in the id, another one each time


def keys(nodeids: Iterable[str]) -> list[str]:
    """A name for each case that is the same in every run."""
    seen: Counter[str] = Counter()
    names = []
    for nodeid in nodeids:
        name = _ADDRESS.sub("0x", nodeid)
        names.append(f"{name}#{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def function_of(key: str) -> str:
    """The test function without the parameters."""
    return key.split("[", 1)[0]


def precision(parameters: Mapping[str, Any]) -> str:
    """'fp16' or 'fp32' where a parameter of the test says it, else ''."""
    for name, value in parameters.items():
        backend = getattr(value, "precision", value[1] if name == "backend" and isinstance(value, tuple) else None)
        if backend in ("fp16", "fp32"):
            return str(backend)
        if "precision" in name and (found := re.search(r"(?i)fp(16|32)|float(16|32)", str(value))):
            return "fp" + next(filter(None, found.groups()))
    return ""


def sample(cases: Mapping[str, str], per_function: int, seed: int) -> list[str]:
    """`cases`: key -> precision, in order. 0 takes all; else so many of each function, float16 only where nothing else is."""
    if not per_function:
        return list(cases)
    by_function: dict[str, list[str]] = defaultdict(list)
    for key in cases:
        by_function[function_of(key)].append(key)
    chosen: set[str] = set()
    for function, members in by_function.items():
        shuffled = random.Random(f"{seed}/{function}").sample(members, len(members))
        chosen.update(sorted(shuffled, key=lambda key: cases[key] == "fp16")[:per_function])
    return [key for key in cases if key in chosen]


def part(chosen: Sequence[str], index: int, parts: int) -> list[str]:
    """Every `parts`-th: neighbours take about the same time."""
    return list(chosen[index::parts])
