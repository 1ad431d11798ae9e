"""The command line of the fuzzer; see the package."""

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.hostile import seed
from benchmarks.hostile.commands import COMMANDS
from benchmarks.hostile.results import Tally
from benchmarks.hostile.table import MUTATORS

FINDINGS = Path(__file__).parents[1] / "hostile-findings"


def arguments() -> argparse.Namespace:
    import benchmarks.hostile as room

    parser = argparse.ArgumentParser(
        "python -m benchmarks.hostile", description=room.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], choices=[*MUTATORS, "kill"], metavar="MUTATOR", help="may be repeated")
    parser.add_argument("--command", action="append", default=[], metavar="NAME", help="commands whose name begins so; may be repeated")
    parser.add_argument("--case", type=int, help="only this one, with the same --seed, --only and --command")
    parser.add_argument("--point", metavar="CALL:KILL:N", help="with --command: killed there, or CALL:ERROR:N, as a finding names it")
    parser.add_argument("--seconds", type=float, default=180, help="that a command may take")
    parser.add_argument("--real", action="store_true", help="`python -m toolkit` for every case, in place of forks")
    parser.add_argument("--scratch", type=Path, help="where the seed and the houses are; kept, and used again")
    parser.add_argument("--findings", type=Path, default=FINDINGS)
    parser.add_argument("--write", action="store_true", help="the table into benchmarks/results")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.command and not any(name.startswith(word) for name in COMMANDS for word in options.command):
        raise SystemExit(f"no command begins with {options.command[0]!r}; there are {', '.join(COMMANDS)}")
    if options.case is not None or options.point is not None:
        options.jobs, options.case = 1, options.case or 0
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as temporary:
        scratch = (options.scratch or Path(temporary)).resolve()
        if not (scratch / "seed" / "whole").exists():
            print("making the seed: a tiny model trained, exported, validated and measured …", file=sys.stderr)
            seed.make(scratch / "seed")
            (scratch / "seed" / "whole").touch()
        tally = Tally(options.minutes, options.seed, options.jobs)
        fuzz(options, scratch, tally)
    print(tally.text())
    if options.write:
        tally.write()
    return 1 if tally.findings else 0


def fuzz(options: argparse.Namespace, scratch: Path, tally: Tally) -> None:
    """Starts the workers and adds up what they say, until all of them have ended."""
    given = {
        "seed": options.seed, "scratch": str(scratch), "only": options.only, "commands": options.command, "minutes": options.minutes,
        "jobs": options.jobs, "case": options.case, "point": options.point, "seconds": options.seconds, "real": options.real,
        "findings": str(options.findings.resolve()),
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "benchmarks.hostile.worker"]
    workers = [
        subprocess.Popen([*command, json.dumps({**given, "job": job})], stdout=subprocess.PIPE, env=environment, start_new_session=True)
        for job in range(options.jobs)
    ]
    selector = selectors.DefaultSelector()
    for worker in workers:
        assert worker.stdout is not None
        selector.register(worker.stdout, selectors.EVENT_READ)
    try:
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if not line:
                    selector.unregister(key.fileobj)
                    continue
                said: dict[str, Any] = json.loads(line)
                for text in tally.add(said, options.verbose):
                    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    finally:
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            if worker.wait() != 0:
                tally.broken.append(f"a worker ended with {worker.returncode}")


if __name__ == "__main__":
    sys.exit(main())
