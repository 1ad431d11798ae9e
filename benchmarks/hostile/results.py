"""Add up the cases: mutator × command, findings by their signature, peaks; the table that is kept."""

import json
import platform
import subprocess
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.hostile.judge import Breach, signature

RESULTS = Path(__file__).parents[1] / "results"


class Tally:
    """What all workers have said so far."""

    def __init__(self, minutes: float, seed: int, jobs: int) -> None:
        self.minutes, self.seed, self.jobs = minutes, seed, jobs
        self.cases: Counter[tuple[str, str]] = Counter()
        self.codes: Counter[int] = Counter()
        self.findings: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.unconfirmed: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.points: set[tuple[str, str]] = set()
        self.peak_bytes, self.slowest_s, self.forged, self.real = 0, 0.0, 0, 0
        self.broken: list[str] = []

    def add(self, said: dict[str, Any], verbose: bool = False) -> list[str]:
        """Lines to show: each finding of a new kind, or, where `verbose`, each case."""
        case = said["case"]
        for mutator in case["mutators"] or ["nothing"]:
            self.cases[mutator, case["command"].partition("-")[0]] += 1
        self.codes[said["code"]] += 1
        self.seconds[case["command"]] += said["seconds"]
        self.peak_bytes, self.slowest_s = max(self.peak_bytes, said["peak_bytes"]), max(self.slowest_s, said["seconds"])
        self.forged, self.real = self.forged + case["forged"], self.real + case["real"]
        if case["point"]:
            self.points.add((case["command"], case["point"]))
        self.unconfirmed.update(signature(Breach(**each)) for each in said["unconfirmed"])
        lines = []
        for breach in [Breach(**each) for each in said["breaches"]]:
            name = signature(breach)
            if name not in self.findings:
                lines.append(f"FINDING case {case['number']}: {breach.kind}: {breach.detail}\n    toolkit {' '.join(said['words'])}\n    "
                             + "; ".join(said["done"])[:300] + (" (hashes forged)" if case["forged"] else ""))  # fmt: skip
            self.findings[name].append(said)
        if verbose:
            lines.append(
                f"case {case['number']}: {case['command']}: {'; '.join(said['done'])[:100]}: {said['code']}, {said['seconds']:.1f} s, "
                f"{said['peak_bytes'] >> 20} MiB"
            )
        return [ascii(line)[1:-1].replace("\\n", "\n") for line in lines]

    @property
    def total(self) -> int:
        return sum(self.codes.values())

    def summary(self) -> dict[str, Any]:
        from toolkit.environment import describe

        return {
            "date": str(date.today()), "commit": _commit(), "minutes": self.minutes, "seed": self.seed, "jobs": self.jobs,
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}", "versions": describe(), "cases": self.total,
            "forged": self.forged, "programs_of_their_own": self.real, "points_killed": len(self.points),
            "exit_codes": {str(code): count for code, count in sorted(self.codes.items())},
            "peak_gib": round(self.peak_bytes / 2**30, 2), "slowest_s": round(self.slowest_s, 1), "broken": self.broken,
            "cases_by_mutator": self._by_mutator(),
            "findings": {name: _of(said) for name, said in sorted(self.findings.items())},
            "seen_in_a_fork_only": dict(self.unconfirmed),
        }  # fmt: skip

    def _by_mutator(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (mutator, command), count in sorted(self.cases.items()):
            found[mutator][command] = count
        return dict(found)

    def text(self) -> str:
        summary, table = self.summary(), self._by_mutator()
        commands = sorted({command for row in table.values() for command in row})
        command = f"python -m benchmarks.hostile --minutes {self.minutes:g} --jobs {self.jobs} --seed {self.seed} --write"
        lines = [
            f"# Hostile model folders, {summary['date']}",
            "",
            f"`{command}`; commit {summary['commit']}; {summary['machine']}.",
            "",
            f"{self.total} cases; in {self.forged} of them every hash was made to fit again, {self.real} ran as programs of their own, "
            f"and a command was killed, or a call of it failed, at {len(self.points)} system calls. "
            f"**{len(self.findings)} distinct findings.** Most memory of all processes of a command: {summary['peak_gib']} GiB; "
            f"slowest case {summary['slowest_s']} s.",
            "",
            "| mutator | " + " | ".join(commands) + " |",
            "|---" * (len(commands) + 1) + "|",
            *("| " + " | ".join([mutator, *(str(row.get(each, "")) for each in commands)]) + " |" for mutator, row in table.items()),
        ]
        if self.findings:
            lines += ["", "| finding | cases | first |", "|---|---|---|"]
            lines += [f"| {ascii(name)[1:-1]} | {len(said)} | {said[0]['case']['number']}, {said[0]['case']['command']} |"
                      for name, said in sorted(self.findings.items(), key=lambda each: -len(each[1]))]  # fmt: skip
        lines += [f"\nBROKEN: {each}" for each in self.broken]
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        RESULTS.joinpath("hostile.json").write_text(json.dumps(self.summary(), indent=1) + "\n", encoding="utf-8")
        RESULTS.joinpath("hostile.md").write_text(self.text(), encoding="utf-8")


def _of(said: list[dict[str, Any]]) -> dict[str, Any]:
    first = said[0]
    return {"cases": len(said), "first": first["case"]["number"], "command": first["case"]["command"], "done": first["done"]}


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=RESULTS, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
