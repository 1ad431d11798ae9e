"""LoadGen's log is read as it is written; without LoadGen it is said what to install; and the real one, where it is."""

from importlib.util import find_spec

import pytest

from tests.bench.test_worker import job_of
from toolkit.bench import loadgen
from toolkit.bench.plan import PRESETS, Options
from toolkit.errors import ToolkitError

LOG = "\n".join(
    f':::MLLOG {{"key": "{key}", "value": {value}, "time_ms": 1.0, "namespace": "mlperf::logging", "metadata": {{}}}}'
    for key, value in {
        "loadgen_version": '"6.0.17"', "result_validity": '"VALID"', "result_query_count": 700,
        "result_qps_with_loadgen_overhead": 70, "result_50.00_percentile_latency_ns": 12_000_000,
        "result_90.00_percentile_latency_ns": 13_000_000, "result_99.00_percentile_latency_ns": 14_000_000,
    }.items()
)  # fmt: skip


def test_its_log_is_read():
    assert loadgen.parsed(LOG) == {"queries": 700, "seconds": 10.0, "valid": True, "p50_ms": 12.0, "p90_ms": 13.0, "p99_ms": 14.0}
    assert loadgen.parsed(LOG.replace('"VALID"', '"INVALID"'))["valid"] is False


def test_a_log_without_a_result_is_said():
    with pytest.raises(ToolkitError, match="no percentiles"):
        loadgen.parsed("something else\n" + LOG.splitlines()[0])


def test_without_it_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(loadgen, "find_spec", lambda name: None)
    with pytest.raises(ToolkitError, match=r"mlcommons-loadgen, which is not installed: pip install .*\[loadgen\]"):
        loadgen.require()


def test_a_run_that_fails_is_a_row_with_its_reason(exported, monkeypatch):
    monkeypatch.setattr(loadgen.metadata, "version", lambda name: "6.0.17")
    row = loadgen.run("arm", job_of(exported, "onnxruntime-coreml"), Options(preset="quick"))
    assert (row.p50_ms, row.valid) == (None, None)
    assert row.error


@pytest.mark.skipif(find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed")
def test_the_real_one_measures_the_same_model(exported, monkeypatch):
    monkeypatch.setitem(PRESETS, "quick", PRESETS["quick"].__class__(**vars(PRESETS["quick"]) | {"loadgen_seconds": 0.5}))
    row = loadgen.run("arm", job_of(exported, "onnxruntime-cpu", batch=1), Options(preset="quick"))
    assert row.error is None
    assert row.queries >= 64
    assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms
