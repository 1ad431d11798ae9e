"""MLPerf LoadGen's SingleStream as an outside judge: its clock, its statistics, its rules: the task `loadgen`."""

import json
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolkit.bench.plan import PRESETS, ROUND_LIMIT_S, Options
from toolkit.bench.result import LoadGenRow
from toolkit.bench.worker import READY, Job, _warm_up, opened
from toolkit.errors import DiskError, ToolkitError
from toolkit.limits import Limits
from toolkit.runtimes import Session
from toolkit.tensors import Batch
from toolkit.workers import Message, started
from toolkit.workers.child import RESULT, Link

PACKAGE, MODULE = "mlcommons-loadgen", "mlperf_loadgen"
QUERIES = 64  # at least: below that its early stopping gives no 90th percentile
MARK = ":::MLLOG "
FIGURES = {
    "p50_ms": "result_50.00_percentile_latency_ns", "p90_ms": "result_90.00_percentile_latency_ns",
    "p99_ms": "result_99.00_percentile_latency_ns",
}  # fmt: skip


def require() -> None:
    """Raises ToolkitError where LoadGen is not installed."""
    if find_spec(MODULE) is None:
        raise ToolkitError(f"--loadgen needs {PACKAGE}, which is not installed: pip install 'apple-deployment-toolkit[loadgen]'")


def run(arm: str, job: Job, options: Options) -> LoadGenRow:
    """One run, of as long as the preset says, in a process of its own."""
    seconds = PRESETS[options.preset].loadgen_seconds
    request = Message(job.model_copy(update={"seconds": seconds}).model_dump(mode="json"))
    nothing: dict[str, Any] = {"queries": 0, "seconds": 0.0, "p50_ms": None, "p90_ms": None, "p99_ms": None, "valid": None}
    about = {"arm": arm, "version": metadata.version(PACKAGE)}
    limits = Limits(seconds=ROUND_LIMIT_S + 2 * seconds)
    try:
        with started("loadgen", request, limits=limits) as worker:
            worker.hear(READY, limits.seconds)
            worker.relax()
            found = worker.hear(RESULT, limits.seconds)
            worker.end()
        return LoadGenRow(**about, **found.fields, error=None)
    except DiskError:
        raise
    except (ToolkitError, ValidationError, TypeError) as error:
        return LoadGenRow(**about, **nothing, error=str(error))


def measure(request: Message, link: Link) -> Message:
    """The task `loadgen`. It says READY when it has warmed up."""
    job = Job.model_validate(request.fields)
    with opened(job) as (session, inputs, _, _):
        _warm_up(session, inputs, job.warmup_calls)
        link.tell(READY)
        return Message(single_stream(session, inputs, job.seconds))


def single_stream(session: Session, inputs: list[Batch], seconds: float) -> dict[str, Any]:
    """LoadGen's figures of a warm session, over at least so many seconds and QUERIES queries."""
    import mlperf_loadgen as lg

    def issue(queries: Any) -> None:
        for query in queries:
            session(inputs[query.index])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])

    began = time.perf_counter_ns()
    for batch in inputs:
        session(batch)
    expected_ns = (time.perf_counter_ns() - began) // len(inputs)
    settings, logs = lg.TestSettings(), lg.LogSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.single_stream_expected_latency_ns = max(1, expected_ns)  # how many queries it prepares follows from it
    settings.min_duration_ms, settings.min_query_count = int(seconds * 1000), QUERIES
    with tempfile.TemporaryDirectory() as folder:
        logs.log_output.outdir, logs.log_output.copy_summary_to_stdout = folder, False
        sut = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(len(inputs), len(inputs), lambda indices: None, lambda indices: None)
        try:
            lg.StartTestWithLogSettings(sut, library, settings, logs)
        finally:
            lg.DestroyQSL(library)
            lg.DestroySUT(sut)
        return parsed(Path(folder, "mlperf_log_detail.txt").read_text(encoding="utf-8"))


def parsed(text: str) -> dict[str, Any]:
    """The figures of a detail log. Raises ToolkitError where it has none."""
    found = dict(_entries(text))
    if any(key not in found for key in FIGURES.values()):
        raise ToolkitError("LoadGen wrote no result; its log has no percentiles")
    return {
        "queries": int(found["result_query_count"]), "seconds": found["result_query_count"] / found["result_qps_with_loadgen_overhead"],
        "valid": found.get("result_validity") == "VALID", **{name: found[key] / 1e6 for name, key in FIGURES.items()},
    }  # fmt: skip


def _entries(text: str) -> Iterator[tuple[str, Any]]:
    for line in text.splitlines():
        if line.startswith(MARK):
            entry = json.loads(line.removeprefix(MARK))
            yield entry["key"], entry["value"]
