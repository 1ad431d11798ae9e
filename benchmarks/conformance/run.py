"""coremltools' own tests against the reference evaluator, on any machine.

    python -m benchmarks.conformance.run --sample              one case of each test function; about six minutes on two cores
    python -m benchmarks.conformance.run [--suite torch-ops …] everything, hours; stop it and start it again as you like
    python -m benchmarks.conformance.run --mutations           makes each op wrong and looks for a case that notices
    python -m benchmarks.conformance.run --table               the tables of what is decided, into benchmarks/results

Needs the extra `conformance`. Results are kept under --results; what is decided there is not run again (--fresh, --again).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks.conformance import mutations, table
from benchmarks.conformance.plugin import Job
from benchmarks.conformance.records import HERE, ROOT, Record, append, append_attempt, read

MIL, TORCH = "converters/mil", "converters/mil/frontend/torch/test"
SUITES: dict[str, tuple[int, tuple[str, ...]]] = {  # name -> parts it is cut into, files and folders of coremltools
    "torch-ops": (2, (f"{TORCH}/test_torch_ops.py",)),
    "mil-ops": (2, (f"{MIL}/mil/ops/tests",)),
    "torch-rest": (1, (TORCH,)),
    "optimize": (
        1,
        ("test/optimize/coreml", "optimize/coreml/experimental", "test/ml_program/test_compression.py", "test/ml_program/test_utils.py"),
    ),
    "passes": (1, (f"{MIL}/mil/passes/tests", f"{MIL}/backend/mil/passes")),
    "mil-core": (
        1,
        (f"{MIL}/mil/tests", f"{MIL}/backend/mil/test_load.py", f"{MIL}/frontend/milproto", f"{MIL}/test_inputs_outputs_shape.py"),
    ),
}
LEFT_OUT = {"torch-rest": (f"{TORCH}/test_torch_ops.py",)}
CASE_SECONDS = 120
SILENCE = 2 * CASE_SECONDS  # a case that cannot be interrupted: its process is ended
CHUNK = 3000  # cases of one process: coremltools and PyTorch keep memory


@dataclass(frozen=True)
class Options:
    """What the command line says of all jobs alike."""

    jobs: int
    all_opsets: bool


def coremltools_folder() -> Path:
    spec = find_spec("coremltools")
    if spec is None or spec.origin is None:
        sys.exit("coremltools is not installed")
    return Path(spec.origin).parent


def command(job: Job) -> list[str]:
    """pytest on the suite, with none of this project's settings."""
    folder = coremltools_folder()
    paths = [str(folder / path) for path in SUITES[job.suite][1]]
    left_out = [f"--ignore={folder / path}" for path in LEFT_OUT.get(job.suite, ())]
    plugins = ["-p", "benchmarks.conformance.plugin", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:xdist"]
    limits = [f"--timeout={CASE_SECONDS}", "--timeout-method=signal", "--continue-on-collection-errors"]
    quiet = ["-q", "--disable-warnings", "--tb=short", "--no-header"]
    return [sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={folder.parent}", *plugins, *limits, *quiet, *left_out, *paths]


def environment(job: Job, options: Options, folder: Path) -> dict[str, str]:
    return os.environ | {
        "CONFORMANCE": str(job.folder / f"{job.name}.job"),  # mutations are too long for the environment
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",  # some parameters come out of sets
        "PYMIL_TEST_TARGETS": "mlprogram",
        "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
        "RUN_BACKWARD_COMPATIBILITY": "1" if options.all_opsets else "0",
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def run_job(job: Job, options: Options, stop: threading.Event) -> None:
    """Process after process until every case of this part is decided; one that dies is written down as crashed."""
    files = {ending: job.folder / f"{job.name}.{ending}" for ending in ("current", "status", "jsonl", "log")}
    (job.folder / f"{job.name}.job").write_text(json.dumps(asdict(job)))
    while not stop.is_set():
        for ending in ("current", "status"):
            files[ending].unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder, files["log"].open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command(job), cwd=folder, env=environment(job, options, Path(folder)), stdout=log, stderr=subprocess.STDOUT
            )
            silent = wait(process, files["current"])
        if files["current"].exists():  # the process ended in the middle of a case
            case = json.loads(files["current"].read_text())
            error = f"no end after {SILENCE} s" if silent else f"the process ended with {process.returncode}"
            if case["op"]:
                append_attempt(job.folder / f"{job.name}.mutated", case["op"], case["key"], "crashed", error)
            else:
                append(files["jsonl"], Record(case["key"], case["suite"], "crashed", error=error))
        elif not files["status"].exists():
            raise SystemExit(f"{job.name}: pytest ended with {process.returncode} before it had collected; see {files['log']}")
        elif not json.loads(files["status"].read_text())["later"]:
            return


def wait(process: "subprocess.Popen[bytes]", current: Path) -> bool:
    """Waits for the end; True if it had to be brought about."""
    while process.poll() is None:
        time.sleep(0.5)
        try:
            silent = time.time() - current.stat().st_mtime > SILENCE
        except FileNotFoundError:
            continue
        if silent:
            process.kill()
            process.wait()
            return True
    return False


def all_jobs(given: argparse.Namespace) -> Iterator[Job]:
    for suite in given.suite:
        parts = SUITES[suite][0]
        every = Job(suite, str(given.results), given.per_function, given.seed, 0, parts, CHUNK, given.torch_export, given.mode)
        yield from (replace(every, part=index) for index in range(parts))


def run_all(jobs: list[Job], options: Options) -> None:
    """All of them, some at a time. Ctrl-C reaches the processes too: what they have decided is kept."""
    start, stop = time.monotonic(), threading.Event()
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_job, job, options, stop): job for job in jobs}
        try:
            for done in as_completed(running):
                done.result()
                print(f"{time.monotonic() - start:6.0f} s  {running[done].name} done", flush=True)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def clear(folder: Path, again: str, suites: Sequence[str]) -> None:
    """Forgets all ("all") or the failed ("failed") records of these suites; those of the others stay."""
    failed = ("failed", "crashed")
    kept = [
        record for record in read(folder).values()
        if record.suite not in suites or (again == "failed" and record.outcome not in failed)
    ]  # fmt: skip
    for path in folder.glob("*"):
        if path.suffix != ".mutated" or not kept:
            path.unlink()
    for record in kept:
        append(folder / "kept.jsonl", record)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--sample", action="store_true", help="one case of each test function, all afresh, and the table")
    parser.add_argument("--per-function", type=int, default=0, help="so many cases of each test function; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--fresh", action="store_true", help="forget what is decided")
    parser.add_argument("--again", action="store_true", help="run the failed cases again")
    parser.add_argument("--all-opsets", action="store_true", help="every op under every opset that has it")
    parser.add_argument("--torch-export", action="store_true", help="also the torch.export variants, which upstream leaves out on x86-64")
    parser.add_argument("--mode", default="as-typed", help="the evaluator's; fp32 computes float16 programs in float32; off: without it")
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--candidates", type=int, default=5, help="cases tried for each mutated op")
    parser.add_argument("--table", action="store_true", help="only the table of what is decided")
    parser.add_argument("--out", type=Path, help="folder of the table; default: beside the results")
    given = parser.parse_args(arguments)
    given.per_function = given.per_function or (1 if given.sample else 0)
    given.results = (given.results or HERE / "runs" / ("sample" if given.sample else "full")).resolve()
    return given


def main() -> None:
    arguments = parse()
    options = Options(arguments.jobs, arguments.all_opsets)
    arguments.results.mkdir(parents=True, exist_ok=True)
    out = arguments.out or arguments.results
    if arguments.mutations:
        mutations.run(
            arguments.results, arguments.candidates, lambda jobs: run_all([replace(job, limit=0) for job in jobs], options), SUITES
        )
        mutations.write(arguments.results, out)
        return
    if not arguments.table:
        if arguments.fresh or arguments.sample or arguments.again:
            clear(arguments.results, "failed" if arguments.again else "all", arguments.suite)
        run_all(list(all_jobs(arguments)), options)
    table.write(arguments.results, out)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; what is decided is kept: the same command goes on from there")
