"""Latency, host to host: every arm in a process of its own, rounds in random order, raw samples kept, verdicts with their intervals."""

from toolkit.bench.bench import bench, bench_file
from toolkit.bench.judge import judged, undecided
from toolkit.bench.keep import REPORT, read
from toolkit.bench.plan import Options
from toolkit.bench.result import Arm, BenchResult, Round

__all__ = ["REPORT", "Arm", "BenchResult", "Options", "Round", "bench", "bench_file", "judged", "read", "undecided"]
