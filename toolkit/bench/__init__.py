"""Latency, host to host: every arm in a process of its own, rounds in random order, raw samples kept, verdicts with their intervals."""

from toolkit.bench.bench import REPORT, bench, bench_file, read
from toolkit.bench.judge import judged
from toolkit.bench.plan import Options
from toolkit.bench.result import Arm, BenchResult, Round

__all__ = ["REPORT", "Arm", "BenchResult", "Options", "Round", "bench", "bench_file", "judged", "read"]
