"""Fuzzes the reference evaluator: damaged packages must end in an answer or a clear error, in bounded time and memory.

    python benchmarks/fuzz.py CORPUS --minutes 30 [--jobs 2] [--seed 0] [--write]

CORPUS is a folder of small packages, of every op: `CONFORMANCE_KEEP=CORPUS make conformance` collects one. Each case takes
one of them and damages its program (fields of the protobuf, or bytes), its weights or its manifest; a worker process loads
and runs it: predict, at times with intermediates, at times predict_array. What ends in anything but a result or a toolkit
error, or takes longer than 60 s or more memory than docs/mil.md allows, is kept in benchmarks/fuzz-findings.

Memory is bounded by elements (toolkit/mil/limits.py). The workers run with the bounds of a machine of 4 GiB, so that passing them is
seen without filling this one: 2^27 elements alive and 2^27 of scratch, of 8 bytes in exact mode, beside PyTorch itself.
"""

import argparse
import json
import multiprocessing
import os
import queue
import random
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
SECONDS = 60
GIB = 2  # that the evaluator may use
OUT_OF_MEMORY = ("allocate memory", "DefaultCPUAllocator", "Unable to allocate", "MemoryError")
NUMBERS = (0, 1, 2, 3, 5, 7, 15, 31, 127, 128, 255, 256, 65535, 2**20, 2**28, 2**31 - 1)
HUGE = (2**31, 2**32, 2**40, 2**53, 2**62)


def fields(message: Any) -> list[tuple[Any, Any]]:
    """Every (message, field) of a protobuf that is set, however deep."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            nested = list(value.values()) if field.message_type.fields_by_name["value"].message_type else []
        else:
            nested = list(value) if field.is_repeated else [value]
        for each in nested:
            found.extend(fields(each))
    return found


def strings(spec: Any) -> list[str]:
    """The names and types the program of a Core ML or ONNX model uses, to put one in place of another."""
    program = getattr(spec, "mlProgram", spec)
    return [getattr(m, f.name) for m, f in fields(program) if f.type == f.TYPE_STRING and not f.is_repeated] or ["x"]


def damage_field(spec: Any, rng: random.Random) -> None:
    """Changes one field: another number, another name, one element less or twice."""
    everything = fields(spec)
    if not everything:  # an earlier damage left nothing
        return
    message, field = rng.choice(everything)
    values = getattr(message, field.name)
    if field.is_repeated and (field.message_type is None or not field.message_type.GetOptions().map_entry):
        index = rng.randrange(len(values)) if len(values) else 0
        if rng.random() < 0.3 and len(values):
            del values[index]
        elif field.message_type is not None:
            values.add().CopyFrom(values[index]) if len(values) < 1000 else values.pop()
        elif len(values):
            values[index] = scalar(field, values[index], rng, spec)
    elif field.is_repeated:
        key = rng.choice(list(values))
        if rng.random() < 0.5:
            del values[key]
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, scalar(field, values, rng, spec))


def scalar(field: Any, old: Any, rng: random.Random, spec: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return rng.choice([*strings(spec), "", "../../x", "a\0b"])
    if field.type == field.TYPE_BYTES:
        return damage_bytes(old, rng)
    if field.type == field.TYPE_BOOL:
        return not old
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, 1e30, -1e30, float("inf"), float("nan"), old * 2, 1e-30])
    if field.type == field.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    number = rng.choice([*NUMBERS, int(old) + 1, max(0, int(old) - 1)] + [-each for each in NUMBERS] + list(HUGE))
    signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    bits = 32 if field.type in (field.TYPE_INT32, field.TYPE_UINT32) else 64
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(max(number, low), high)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.random()
        if kind < 0.6 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind < 0.75:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 64))))
        elif kind < 0.9:
            del changed[at : at + rng.choice((1, 4, 64))]
        else:
            del changed[at:]
    return bytes(changed)


def damage(package: Path, rng: random.Random) -> str:
    """Damages a package in place; says what was done."""
    from toolkit.mil._proto import model_pb2

    model = package / "Data/com.apple.CoreML/model.mlmodel"
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    kind = rng.choices(("fields", "program", "weights", "manifest"), (80, 10, 8, 2))[0]
    if kind == "fields":
        spec = model_pb2().Model.FromString(model.read_bytes())
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            damage_field(spec, rng)
        model.write_bytes(spec.SerializeToString())
    else:
        path = {"program": model, "weights": weights, "manifest": package / "Manifest.json"}[kind]
        if path.exists():
            path.write_bytes(damage_bytes(path.read_bytes(), rng))
    return kind


def inputs_for(evaluator: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Something each input takes, as its description says."""
    from PIL import Image

    given = {}
    for feature in evaluator.features:
        lows = feature.shapes[0] if feature.shapes else tuple(low for low, _ in feature.ranges)
        declared = feature.type.shape if feature.type.shape is not None else (2,)
        shape = lows or tuple(2 if size is None else size for size in declared)
        shape = tuple(min(size, 2**12) for size in shape)  # a damaged range may ask for more than anybody would give
        if feature.color is not None:
            mode = {"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}.get(feature.color, "RGB")
            given[feature.name] = Image.new(mode, (shape[-1], shape[-2]))
        elif feature.type.dtype.startswith("fp"):
            given[feature.name] = rng.normal(size=shape).astype(np.float32)
        else:
            given[feature.name] = rng.integers(0, 2, shape).astype(np.int32)
    return given


def run_one(package: Path, seed: int) -> str:
    """'answer' or 'refused'; anything else raises. A refusal for want of memory came too late: it is a finding."""
    from toolkit.errors import ToolkitError
    from toolkit.mil import ReferenceEvaluator

    rng = np.random.default_rng(seed)
    try:
        evaluator = ReferenceEvaluator(package, ("as-typed", "fp32", "exact")[seed % 3])
        inputs = inputs_for(evaluator, rng)
        if rng.random() < 0.25 and len(inputs) == 1 and (stack := stacked(evaluator, inputs)) is not None:
            evaluator.predict_array(stack)
        else:
            evaluator.predict(inputs, state=evaluator.make_state(), intermediates=bool(rng.random() < 0.25))
    except ToolkitError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return "refused"
    return "answer"


def stacked(evaluator: Any, inputs: dict[str, Any]) -> Any:
    """The one input three times over, as predict_array takes it; None where it has no axis to stack along."""
    feature, value = evaluator.features[0], next(iter(inputs.values()))
    if feature.color is not None:
        value = np.array(value, np.float32).reshape(1, *value.size[::-1], -1).transpose(0, 3, 1, 2)
    return np.concatenate([value] * 3) if value.shape[:1] == (1,) else None


def narrow_bounds() -> int:
    """Less memory for every evaluator of this process; the bytes that its bounds then allow."""
    from toolkit.limits import MEMORY_VARIABLE

    os.environ[MEMORY_VARIABLE] = str(GIB)
    return (GIB << 30) + (2 << 30)  # and PyTorch itself


def worker(corpus: list[Path], folder: Path, jobs: Any, results: Any) -> None:
    """Takes seeds, damages and runs; the parent kills it when a case takes too long."""
    import torch

    memory_bytes = narrow_bounds()
    from toolkit.mil.ops import control

    torch.set_num_threads(1)
    control.MAX_ITERATIONS = 1000  # the bound is tested elsewhere; here it would only cost time
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("ignore")
    while (seed := jobs.get()) is not None:
        results.put(("begin", seed, "", ""))
        rng = random.Random(seed)
        package = folder / "case.mlpackage"
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(rng.choice(corpus), package)
        kind = "none"
        try:
            kind = damage(package, rng)
            results.put(("end", seed, kind, run_one(package, seed)))
        except BaseException:  # a finding, whatever it is: MemoryError and SystemExit too
            results.put(("end", seed, kind, traceback.format_exc()))


class Worker:
    """One process, what it is at and since when. It is replaced when it hangs or dies."""

    def __init__(self, corpus: list[Path]) -> None:
        self.corpus, self.folder = corpus, Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.jobs, self.results = context.Queue(), context.Queue()
        self.process = context.Process(target=worker, args=(self.corpus, self.folder, self.jobs, self.results), daemon=True)
        self.process.start()
        self.seed: int | None = None
        self.since = time.monotonic()

    def give(self, seed: int) -> None:
        self.seed, self.since = seed, time.monotonic()
        self.jobs.put(seed)

    def outcome(self) -> tuple[str, str] | None:
        """(kind, what happened) when the case is over. The first case pays for the imports, so time starts at 'begin'."""
        try:
            what, _, kind, result = self.results.get(timeout=0.05)
        except queue.Empty:
            if not self.process.is_alive():
                code = self.process.exitcode
                self.start()
                return "?", f"the process died with exit code {code}"
            if time.monotonic() - self.since > SECONDS + 60 * (self.seed is None):
                self.process.kill()
                self.start()
                return "?", f"no end after {SECONDS} s"
            return None
        if what == "begin":
            self.since = time.monotonic()
            return None
        return kind, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="these seeds again")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    corpus = sorted(options.corpus.glob("*.mlpackage"))
    findings = Path(__file__).parent / "fuzz-findings"
    counts: Counter[str] = Counter()
    begin, seed, slowest = time.monotonic(), options.seed, 0.0
    todo = list(options.only or [])
    workers = [Worker(corpus) for _ in range(options.jobs)]
    busy: set[int] = set()
    while busy or (todo if options.only else time.monotonic() - begin < 60 * options.minutes):
        for index, each in enumerate(workers):
            if index not in busy:
                if options.only and not todo:
                    continue
                if not options.only and time.monotonic() - begin > 60 * options.minutes:
                    continue
                each.give(todo.pop() if options.only else seed)
                seed += 1
                busy.add(index)
            number, started = each.seed, each.since
            outcome = each.outcome()
            if outcome is None:
                continue
            busy.discard(index)
            slowest = max(slowest, time.monotonic() - started)
            kind, result = outcome
            ok = result in ("answer", "refused")
            counts[f"{kind}: {result if ok else 'FINDING'}"] += 1
            if not ok:
                print(f"seed {number}: {kind}: {result.strip().splitlines()[-1][:200]}", flush=True)
                findings.mkdir(parents=True, exist_ok=True)
                findings.joinpath(f"{number}.txt").write_text(result)
                if (each.folder / "case.mlpackage").exists():
                    shutil.copytree(each.folder / "case.mlpackage", findings / f"{number}.mlpackage", dirs_exist_ok=True)
    for each in workers:
        each.process.kill()
        shutil.rmtree(each.folder, ignore_errors=True)
    total = sum(counts.values())
    summary = {"date": str(date.today()), "minutes": options.minutes, "first_seed": options.seed, "cases": total, "corpus": len(corpus)}
    summary |= {
        "slowest_s": round(slowest, 1),
        "limit_s": SECONDS,
        "memory_gib": GIB,
        "outcomes": dict(sorted(counts.items())),
    }
    print(json.dumps(summary, indent=1))
    if options.write:
        RESULTS.joinpath("fuzz.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
