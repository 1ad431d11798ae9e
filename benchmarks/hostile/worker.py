"""One worker of the fuzzer: does the imports once, and then carries out every so-many-th case, in forks of itself.

    python -m benchmarks.hostile.worker '{"seed": 0, …}'     (started by `python -m benchmarks.hostile`)

Standard output has one line of JSON a case. It has no threads, so that its forks are sound.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.hostile import forks, house, kills, launch
from benchmarks.hostile.case import Case, Judged, Options, Plans, carry_out, draw
from benchmarks.hostile.judge import Breach, signature

LIBRARIES = ("torch", "torch.export", "torch.onnx", "numpy", "onnx", "sklearn.datasets", "scipy.stats", "PIL.Image", "rich", "jinja2",
             "matplotlib.pyplot", "onnxscript", "torch.onnx._internal.exporter._core", "coreai_torch", "safetensors.torch",
             "yaml", "psutil", "torch.utils.data")  # fmt: skip

DOUBTED = ("time", "memory", "process left", "traceback", "exit code", "temporary")  # what being a fork might have caused


def prepare() -> None:
    """Imports all that a command may need: a fork then starts in no time."""
    given = dict(os.environ)
    import toolkit
    import toolkit.cli

    warnings.simplefilter("ignore")
    for name in [each.name for each in pkgutil.walk_packages(toolkit.__path__, "toolkit.")]:
        if not name.endswith(("__main__", "runtimes.onnxruntime")):  # onnxruntime starts a thread when it is imported
            _import(name)
    for name in LIBRARIES:
        _import(name)
    _import("toolkit.mil._coremltools", call="import_coremltools")
    launch.SET_BY_IMPORTS.update({name: value for name, value in os.environ.items() if given.get(name) != value})
    gc.collect()
    gc.freeze()  # what is never collected is never copied
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        print("note: an import has started threads, which its forks do not have", file=sys.stderr)


def _import(name: str, call: str | None = None) -> None:
    try:
        module = importlib.import_module(name)
        if call:
            getattr(module, call)()
    except Exception as error:  # a module that is not for this machine, such as coreai's
        print(f"note: {name} was not imported beforehand: {type(error).__name__}", file=sys.stderr)


def work(given: dict[str, Any]) -> None:
    options = Options(
        seed=given["seed"], scratch=Path(given["scratch"]), only=given["only"], commands=given["commands"],
        seconds=given["seconds"], real=given["real"],
    )  # fmt: skip
    job, jobs = given["job"], given["jobs"]
    place = options.scratch / f"house{job}"
    launch.subreaper()
    place.mkdir(exist_ok=True)
    if (why := house.mount_small(place)) is not None:
        print(f"note: full disk, small tmp: not run: {why}", file=sys.stderr)
    kill = kills.why_not()
    if kill is not None:
        print(f"note: kills: not run: {kill}", file=sys.stderr)
    prepare()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    plans, known = Plans(job, jobs), set[str]()
    number, until = given["case"] if given["case"] is not None else job, time.monotonic() + 60 * given["minutes"]
    while True:
        case, _ = draw(options, number, kill is None)
        if given["point"] is not None:
            case = Case(number, given["commands"][0], "unfinished" if given["commands"][0] == "train-resume" else "finished", ["kill"])
            case.point = given["point"]
        try:
            judged = confirmed(options, case, place, plans, known)
        except RuntimeError as error:
            judged = Judged(case, [], [], 0, 0, 0, [Breach("the fuzzer itself", str(error))])
        keep(judged, place, Path(given["findings"]))
        print(judged.line(), file=results, flush=True)
        number += jobs
        if given["case"] is not None or time.monotonic() > until:
            break
    house.demolish(place)


def confirmed(options: Options, case: Case, place: Path, plans: Plans, known: set[str]) -> Judged:
    """Carries a case out; where a breach is new and a fork might have caused it, once more, as a program of its own."""
    judged = carry_out(options, case, place, plans)
    new = {signature(breach) for breach in judged.breaches} - known
    if not any(name.startswith(DOUBTED) for name in new) or case.real or case.point is not None:
        known |= new
        return judged
    again = carry_out(options, replace(case, real=True), place, plans)
    kinds = {breach.kind for breach in again.breaches}
    again.unconfirmed = [breach for breach in judged.breaches if breach.kind not in kinds]
    again.case = case
    known |= {signature(breach) for breach in [*again.breaches, *judged.breaches]}
    return again


def keep(judged: Judged, place: Path, findings: Path) -> None:
    """The folder as the command left it, and what is needed to see it again. A few of each kind."""
    import re
    import subprocess

    for breach in {signature(each): each for each in judged.breaches}.values():
        folder = findings / re.sub(r"[^A-Za-z0-9.#]+", "-", signature(breach))[:100]
        if len(list(folder.glob("*"))) >= 3:
            continue
        target = folder / str(judged.case.number)
        target.mkdir(parents=True, exist_ok=True)
        (target / "said.txt").write_text(judged.said, encoding="utf-8", errors="backslashreplace")
        stored = {"words": judged.words, "done": judged.done, "breaches": [[each.kind, each.detail] for each in judged.breaches]}
        (target / "case.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")
        subprocess.run(["cp", "-a", "--sparse=always", str(place / "models"), str(target)], capture_output=True, check=False)


def main() -> None:
    became = False
    try:
        work(json.loads(sys.argv[1]))
    except launch.Become:
        became = True
    if became:  # in the fork: no longer the fuzzer, but the command
        forks.install()
        runpy.run_module("toolkit", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
