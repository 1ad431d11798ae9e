"""The table of ops in docs/mil.md, made from the code: `python -m toolkit.mil.catalogue docs/mil.md` writes it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import ArtifactError
from toolkit.mil.ops.table import OPS

BEGIN, END = "<!-- ops: made by `make docs` -->", "<!-- end of ops -->"
_SOURCE = re.compile(r"\biOS(\d\d)[|\d]*/\w+\.py")


def rows() -> Iterator[tuple[str, int, str]]:
    """(op, iOS it came with, first sentence of its specification). Raises ArtifactError for one without a source."""
    for name, op in sorted(OPS.items()):
        text = " ".join((op.function.__doc__ or "").split())
        sources = _SOURCE.findall(text) or re.findall(r"for iOS(\d\d)", text)
        if not sources:
            raise ArtifactError(f"{name}: its docstring names no source such as iOS15/activation.py")
        yield name, min(map(int, sources)), _SOURCE.split(text)[0].split(". ")[0].rstrip(". ")


def markdown() -> str:
    """One row an op: name, opset, specification."""
    lines = ["| op | since | computes |", "|---|---|---|"]
    for name, since, text in rows():
        escaped = re.sub(r"([|*_])", r"\\\1", text)
        lines.append(f"| `{name}` | iOS{since} | {escaped} |")
    return "\n".join(lines)


def inserted(page: str) -> str:
    """`page` with the table between its two markers."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ArtifactError(f"the page lacks the markers {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(inserted(target.read_text()))
