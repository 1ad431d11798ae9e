"""What validation costs beside inference itself: the wall time of `toolkit validate` against the sum of its sessions' own calls.

    python benchmarks/validation_cost.py MODEL [--limit N] [--all-images] [--jobs N] [--write]

MODEL is a name under models/, or a path; it needs a checkpoint and exports. Nothing is taken from the cache, and both times are of
the same run: the sum is what the workers' sessions took for the test images, call by call, so golden images, contract, pictures,
loading, processes and judging are the overhead. `--write` puts the table into benchmarks/results. Ends with 1 beyond ALLOWED.
"""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

from toolkit.environment import describe, in_words
from toolkit.errors import ToolkitError
from toolkit.validation import Limits, ValidationResult, validate
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
ALLOWED = 1.3  # times the bare inference, on 10,000 images


def report(result: ValidationResult, command: str) -> tuple[str, float]:
    """(Markdown, wall time over bare inference)."""
    bare = sum(row.seconds for row in result.rows)
    ratio = result.seconds / bare
    lines = [
        f"# What validation costs, {date.today()}", "", f"`{command}`; {in_words(result.environment)}.", "",
        f"{result.seconds:.1f} s for all, {bare:.1f} s of it inference on test images: {ratio:.2f} times (allowed {ALLOWED}).", "",
        "| artifact | runtime | images | inference (s) | images/s |", "|---|---|---|---|---|",
        *(f"| {row.artifact} | {row.runtime} | {row.images} | {row.seconds:.2f} | {row.images / row.seconds:.0f} |" for row in result.rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n", ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--all-images", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    try:
        result = validate(
            Workspace.of(given.model), limit=given.limit, all_images=given.all_images, data_dir=given.data_dir, cache=False,
            limits=Limits(jobs=given.jobs),
        )  # fmt: skip
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    options = f"{f' --limit {given.limit}' if given.limit else ''}{' --all-images' if given.all_images else ''} --jobs {given.jobs}"
    text, ratio = report(result, f"python benchmarks/validation_cost.py {result.model}{options}")
    print(text)
    if given.write:
        rows = {f"{row.artifact} on {row.runtime}": {"images": row.images, "seconds": row.seconds} for row in result.rows}
        kept = {"wall_seconds": result.seconds, "ratio": ratio, "rows": rows, "environment": describe()}
        RESULTS.joinpath("validation-cost.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("validation-cost.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0 if ratio <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
