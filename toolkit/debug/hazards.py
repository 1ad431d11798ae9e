"""What may go wrong in fp16 and on the Neural Engine, before it does: the range of every op's values over real images."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import MANIFEST, Artifact
from toolkit.data import load, stratified_subset
from toolkit.debug.program import Op, read
from toolkit.debug.result import Hazard, HazardsResult
from toolkit.errors import ToolkitError
from toolkit.mil import ReferenceEvaluator
from toolkit.progress import progress
from toolkit.runtimes.coreml import picture
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.tensors import IMAGE
from toolkit.workspace import Workspace

Array = np.ndarray[Any, Any]
FP16_MAX, NORMAL, SMALLEST = 65504.0, 2.0**-14, 2.0**-24
IMAGES = 256
TIGHT_BITS = 3.0
MANY = 0.1  # a share of subnormal values from which on their lost digits may matter
ORDER = ("overflow", "cliff", "tight", "subnormal", "ok")


@dataclass(frozen=True)
class Cliff:
    """Trouble of one op type, by its input: larger than `above`, or smaller than `below` in size."""

    above: float = math.inf
    below: float = 0.0
    why: str = ""


CLIFFS = {
    "softplus": Cliff(above=10.4, why="the Neural Engine returns 0 from about 10.4 on (apple/coremltools#2687)"),
    "reduce_log_sum_exp": Cliff(above=7.6, why="the Neural Engine returns inf from about 7.63 on (apple/coremltools#2690)"),
    "exp": Cliff(above=math.log(FP16_MAX), why="exp of more than 11.09 is beyond fp16"),
    "log": Cliff(below=SMALLEST, why="what fp16 flushes to 0 has the logarithm -inf: log_softmax as log(softmax) (apple/coremltools#2728)"),
    "inverse": Cliff(below=1 / FP16_MAX, why="one over less than 1.5e-5 is beyond fp16"),
    "rsqrt": Cliff(below=FP16_MAX**-2, why="one over the root of less than 2.3e-10 is beyond fp16"),
}


@dataclass
class Range:
    """Running figures of one op: nothing of the values themselves is kept."""

    largest: float = 0.0
    smallest: float = math.inf
    values: int = 0
    subnormal: int = 0
    lost: int = 0
    input_largest: float = -math.inf
    input_smallest: float = field(default=math.inf)

    def add(self, value: Array, read: list[Array]) -> None:
        size = np.nan_to_num(np.abs(value.astype(np.float64).reshape(-1)), nan=math.inf, posinf=math.inf)
        size = size[size > 0]
        self.values += size.size
        if size.size:
            self.largest, self.smallest = max(self.largest, float(size.max())), min(self.smallest, float(size.min()))
            self.subnormal += int((size < NORMAL).sum())
            self.lost += int((size < SMALLEST).sum())
        for each in read:
            self.input_largest = max(self.input_largest, float(each.max()))
            self.input_smallest = min(self.input_smallest, float(np.abs(each).min()))


def hazards(workspace: Workspace, *, images: int = IMAGES, data_dir: Path | None = None) -> HazardsResult:
    """Runs a Core ML artifact in float32 on test images, evenly over the classes. Raises ToolkitError where there is none."""
    started = time.monotonic()
    there = [path for path in artifact_folders(workspace) if path.name.startswith("coreml-") and (path / MANIFEST).is_file()]
    if not there:
        raise ToolkitError(f"there is no Core ML artifact in {workspace.exports} to look into: toolkit export --format coreml")
    artifact, checkpoint = Artifact.open(there[0]), checkpoint_of(workspace)
    data = load(checkpoint.recipe.data.set, data_dir)
    chosen = data.test_images[stratified_subset(data.test_labels, images)].numpy().astype(np.float32)
    evaluator = ReferenceEvaluator(artifact.entry, mode="fp32")
    as_image = artifact.manifest.input_kind == "image"
    kept = _kept_fp32(artifact)
    rows = ranges(evaluator, read(artifact), [{IMAGE: picture(image) if as_image else image[None]} for image in chosen], kept)
    return HazardsResult(
        model=checkpoint.recipe.name, artifact=artifact.id, images=len(chosen), hazards=rows, seconds=time.monotonic() - started
    )


def _kept_fp32(artifact: Artifact) -> frozenset[str]:
    """Ops of an fp16 program that compute in fp32: there nothing ends at 65504. Of an fp32 program none: fp16 is the question."""
    if artifact.manifest.precision != "fp16":
        return frozenset()
    rounded = set(ReferenceEvaluator(artifact.entry, mode="as-typed").rounded)
    return frozenset(op.name for op in read(artifact) if op.name not in rounded and op.type != "identity")


def ranges(evaluator: ReferenceEvaluator, ops: list[Op], inputs: list[dict[str, Any]], kept: frozenset[str] = frozenset()) -> list[Hazard]:
    """One row an op that gives floats, the worst first. `evaluator` in fp32 or exact mode; memory does not grow with `inputs`."""
    found: dict[str, Range] = {op.name: Range() for op in ops}
    with progress("hazards", len(inputs)) as update:
        for number, each in enumerate(inputs, start=1):
            values = evaluator.predict(each, intermediates=True)
            for op in ops:
                value = values.get(op.name)
                if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                    read_values = [values[name] for name in op.inputs if isinstance(values.get(name), np.ndarray)]
                    found[op.name].add(value, read_values if op.type in CLIFFS else [])
            update(number)
    rows = [_judged(op, found[op.name], op.name in kept) for op in ops if found[op.name].values]
    return sorted(rows, key=lambda row: (ORDER.index(row.verdict), row.headroom_bits))


def _judged(op: Op, seen: Range, kept: bool) -> Hazard:
    headroom = math.log2(FP16_MAX / seen.largest) if math.isfinite(seen.largest) else -math.inf
    cliff = CLIFFS.get(op.type)
    over = cliff is not None and (seen.input_largest > cliff.above or seen.input_smallest < cliff.below)
    subnormal, lost = seen.subnormal / seen.values, seen.lost / seen.values
    if kept:
        verdict, why = "ok", "kept in fp32" if headroom < TIGHT_BITS or over else ""
    elif headroom < 0:
        verdict, why = "overflow", f"{seen.largest:.4g} is beyond fp16's 65504: keep it in fp32 (toolkit export --keep-fp32 {op.name})"
    elif over and cliff is not None:
        verdict, why = "cliff", f"{cliff.why}; its inputs go from {seen.input_smallest:.3g} (in size) to {seen.input_largest:.3g}"
    elif headroom < TIGHT_BITS:
        verdict, why = "tight", f"{headroom:.1f} bits from overflow: other images may reach it"
    elif subnormal > MANY:
        verdict, why = "subnormal", f"{100 * subnormal:.0f} % of its values have fewer digits in fp16, {100 * lost:.0f} % become 0"
    else:
        verdict, why = "ok", ""
    return Hazard(
        position=op.position, op=op.type, name=op.name, largest=seen.largest, smallest=seen.smallest, headroom_bits=headroom,
        subnormal=subnormal, lost=lost, verdict=verdict, why=why,
    )  # fmt: skip
