"""A pytest plugin (`-p benchmarks.conformance.plugin`) under which coremltools' own tests predict on any machine.

Upstream's tests skip prediction off macOS and then pass. Here the reference evaluator answers, every case is watched
(watch.py) and written down (records.py). What to run is a `Job`, as JSON in the file that CONFORMANCE names;
TOOLKIT_MIL_MUTATE=<op> makes that op wrong; CONFORMANCE_KEEP=<folder> collects small packages there.
"""

import json
import os
import platform
import random
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conformance import choose
from benchmarks.conformance.mutate import mutated
from benchmarks.conformance.records import Record, append, append_attempt, attempts, code, read
from benchmarks.conformance.watch import WATCH, Case, marked, spied

ERROR_LENGTH = 600
KEPT_PER_OP, KEPT_BYTES = 2, 60_000


@dataclass(frozen=True)
class Job:
    """What one process of run.py does. `limit`: so many cases at most; `mutations`: key -> ops, instead of a sample."""

    suite: str
    results: str
    per_function: int = 0
    seed: int = 0
    part: int = 0
    parts: int = 1
    limit: int = 0
    torch_export: bool = False
    mode: str = "as-typed"
    mutations: Mapping[str, list[str]] | None = None

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.part}"

    @property
    def folder(self) -> Path:
        return Path(self.results)


@dataclass
class _Session:
    job: Job
    code: str
    stack: ExitStack = field(default_factory=ExitStack)
    tried: set[tuple[str, str]] = field(default_factory=set)  # op, key
    red: set[str] = field(default_factory=set)
    precisions: dict[str, str] = field(default_factory=dict)  # key -> that of the case, for mutations

    def note(self, op: str, key: str, outcome: str, error: str = "") -> None:
        """One attempt to see a wrong op."""
        append_attempt(self.file("mutated"), op, key, outcome, error)
        if outcome == "failed":
            self.red.add(op)

    def file(self, ending: str) -> Path:
        return self.job.folder / f"{self.job.name}.{ending}"


_KEY = pytest.StashKey[str]()
_SESSION = pytest.StashKey[_Session]()
_RUNNING: list[_Session] = []  # for the one hook that is given no config


def pytest_configure(config: pytest.Config) -> None:
    session = _Session(Job(**json.loads(Path(os.environ["CONFORMANCE"]).read_text())), code())
    config.stash[_SESSION] = session
    _RUNNING.append(session)
    if session.job.mode != "off":
        enter_apple(session.stack, session.job)
    if session.job.mutations is not None:
        session.precisions = {key: record.precision for key, record in read(session.job.folder).items()}
    for each in attempts(session.job.folder) if session.job.mutations is not None else ():
        session.tried.add((each["op"], each["key"]))
        session.red.update([each["op"]] if each["outcome"] == "failed" else [])
    if op := os.environ.get("TOOLKIT_MIL_MUTATE"):
        session.stack.enter_context(mutated(op))


def pytest_unconfigure(config: pytest.Config) -> None:
    _RUNNING.remove(config.stash[_SESSION])
    config.stash[_SESSION].stack.close()


def enter_apple(stack: ExitStack, job: Job) -> None:
    """What the tests look at before they predict. Before they are imported: they bind these names."""
    from toolkit._torchvision import import_torchvision

    import_torchvision()
    from coremltools import _deps
    from coremltools.models import model

    from toolkit.mil.dropin import coremltools_predict

    _deps._IS_MACOS = True
    stack.callback(setattr, _deps, "_IS_MACOS", False)
    stack.enter_context(coremltools_predict(job.mode))
    model._MLModelProxy = recording(model._MLModelProxy)  # put back by coremltools_predict
    stack.enter_context(spied())
    if job.torch_export:  # upstream leaves these variants out on x86-64
        machine = platform.machine
        platform.machine = lambda: "arm64"
        stack.callback(setattr, platform, "machine", machine)


def recording(proxy: Any) -> type:
    """The drop-in's class, telling WATCH."""

    class Recording(proxy):  # type: ignore[misc]
        def __init__(self, filename: str, *args: Any) -> None:
            super().__init__(filename, *args)
            if declares_fp16(filename):  # "fp32" cases too have float16 tensors: the type of a parameter of the test, say
                WATCH.case.precision = "fp16"
            elif not WATCH.case.precision:
                WATCH.case.precision = "fp32"
            if folder := os.environ.get("CONFORMANCE_KEEP"):
                keep(Path(filename), self.evaluator.op_types, Path(folder))

        def predict(self, data: Any, state: Any = None) -> Any:
            WATCH.case.predictions += 1
            WATCH.case.ops |= self.evaluator.op_types
            return marked(super().predict(data, state))

        def newState(self) -> Any:
            state = super().newState()
            read_state = state.read_state
            state.read_state = lambda name: marked(read_state(name))
            return state

    return Recording


def keep(package: Path, ops: frozenset[str], folder: Path) -> None:
    """A copy of a small package for each two times that an op is seen: what benchmarks/fuzz.py damages."""
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    new = [op for op in sorted(ops) if len(list(folder.glob(f"{op}-*.mlpackage"))) < KEPT_PER_OP]
    if new and size < KEPT_BYTES:
        shutil.copytree(package, folder / f"{new[0]}-{zlib.crc32(str(package).encode()):08x}.mlpackage", dirs_exist_ok=True)


def declares_fp16(path: str) -> bool:
    """Whether the program takes float16, or any op of it gives float16."""
    from coremltools.models.utils import load_spec
    from coremltools.proto.MIL_pb2 import FLOAT16

    functions = load_spec(path).mlProgram.functions.values()
    blocks = (block for function in functions for block in function.block_specializations.values())
    outputs = (output for block in blocks for operation in block.operations for output in operation.outputs)
    inputs = (value for function in functions for value in function.inputs)
    return any(value.type.tensorType.dataType == FLOAT16 for values in (outputs, inputs) for value in values)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be imported is a result too: its cases must not just be missing."""
    if _RUNNING and _RUNNING[-1].job.mutations is None and (report.failed or report.skipped):
        session = _RUNNING[-1]
        result = "failed" if report.failed else "skipped"
        append(session.file("jsonl"), Record(report.nodeid, session.job.suite, result, error=message(report), code=session.code))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash[_SESSION]
    job = session.job
    named = dict(zip(choose.keys(item.nodeid for item in items), items, strict=True))
    for key, item in named.items():
        item.stash[_KEY] = key
    if job.mutations is not None:
        chosen = [key for key in named if key in job.mutations]
        left = choose.part(chosen, job.part, job.parts)
    else:
        chosen = choose.sample({key: _declared(item) for key, item in named.items()}, job.per_function, job.seed)
        decided = read(job.folder)
        left = [key for key in choose.part(chosen, job.part, job.parts) if key not in decided]
    now = left[: job.limit or None]
    session.file("status").write_text(json.dumps({"collected": len(items), "chosen": len(chosen), "later": len(left) - len(now)}))
    wanted = set(now)
    items[:] = [item for key, item in named.items() if key in wanted]


def _declared(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return choose.precision(callspec.params) if callspec else ""


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Once; or, for mutations, once for each op that is still to turn red."""
    session, key = item.config.stash[_SESSION], item.stash[_KEY]
    begin = {"key": key, "suite": session.job.suite}
    if session.job.mutations is None:
        session.file("current").write_text(json.dumps({**begin, "op": None}))
        append(session.file("jsonl"), decide(session, item, nextitem))
        return True
    for op in session.job.mutations.get(key, []):
        if op in session.red or (op, key) in session.tried:
            continue
        session.file("current").write_text(json.dumps({**begin, "op": op}))
        with mutated(op, session.precisions[key]):
            record = decide(session, item, nextitem)
        if record.outcome == "failed" and decide(session, item, nextitem).outcome != "passed":
            record = replace(record, outcome="unstable")  # it fails with the right op too when it runs here: it shows nothing
        session.note(op, key, record.outcome, record.error)
    return True


def decide(session: _Session, item: pytest.Item, nextitem: pytest.Item | None) -> Record:
    """Runs the case, with its own seed, and says how it went."""
    from _pytest.runner import runtestprotocol

    key = item.stash[_KEY]
    WATCH.case = case = Case(precision=_declared(item))
    start = time.perf_counter()
    with _cleaned():
        if hasattr(item, "_initrequest"):
            item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    return Record(
        key=key,
        suite=session.job.suite,
        outcome=outcome(reports),
        precision=case.precision,
        predictions=case.predictions,
        comparisons=case.comparisons,
        largest=case.largest,
        seconds=round(time.perf_counter() - start, 3),
        error=next((error for report in reports if (error := message(report))), ""),
        code=session.code,
        ops=sorted(case.ops),
    )


def outcome(reports: list[Any]) -> str:
    """Of setup, call and teardown together."""
    if any(report.failed for report in reports):
        return "failed"
    skipped = [report for report in reports if report.skipped]
    if skipped:
        return "xfailed" if hasattr(skipped[0], "wasxfail") else "skipped"
    return "passed"


def message(report: Any) -> str:
    """The last exception in one line; for a skip, its reason."""
    if report.skipped:
        return getattr(report, "wasxfail", "") or str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr or "")
    return re.sub(r"\s+", " ", text).strip()[:ERROR_LENGTH]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """With a seed of its own: upstream seeds once a module, and a sample would change every number."""
    import numpy as np
    import torch

    seed = zlib.crc32(item.stash[_KEY].encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    yield
    if WATCH.case.violations:
        raise AssertionError(f"float16: {WATCH.case.violations[0]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_SESSION].file("current").unlink(missing_ok=True)


class _cleaned:
    """Removes the packages that a case leaves in the temporary folder: coremltools removes them when the process ends."""

    def __enter__(self) -> None:
        self.before = set(self._packages())

    def __exit__(self, *_: object) -> None:
        for path in set(self._packages()) - self.before:
            shutil.rmtree(path, ignore_errors=True)

    def _packages(self) -> Iterator[Path]:
        return Path(tempfile.gettempdir()).glob("*.mlpackage")
