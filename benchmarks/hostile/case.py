"""Draw a case from its seed and number, build its house, and run and judge it."""

import json
import os
import random
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hostile import commands, forge, house, kills
from benchmarks.hostile.judge import Before, Breach, judge
from benchmarks.hostile.launch import Ended, run
from benchmarks.hostile.scene import Scene
from benchmarks.hostile.table import CONTENTS, MUTATORS, ONLY_FOR

SHARE_KILLED, SHARE_REAL = 0.2, 0.04
MEMORY_GIB = 3.0  # that the toolkit is told to stay within, for its workers together
WORKER_S = 60  # that a worker of a command may take
BASE_GIB = 1.75  # of the command itself, and of what each process has from its imports alone
BUILD_S = 120


@dataclass(frozen=True)
class Options:
    """What the command line says; the same for every worker."""

    seed: int
    scratch: Path
    only: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    seconds: float = 180.0
    real: bool = False


@dataclass
class Case:
    """`mutators`: names, in order. `point`: where it is killed. `forged`: every hash made to fit again."""

    number: int
    command: str
    model: str
    mutators: list[str]
    forged: bool = False
    real: bool = False
    point: str | None = None

    @property
    def name(self) -> str:
        return " + ".join(self.mutators) or "nothing changed"


@dataclass
class Judged:
    """What a worker tells of a case. `unconfirmed`: breaches that only a fork showed."""

    case: Case
    words: list[str]
    done: list[str]
    code: int
    seconds: float
    peak_bytes: int
    breaches: list[Breach]
    said: str = ""
    unconfirmed: list[Breach] = field(default_factory=list)

    def line(self) -> str:
        stored = asdict(self)
        stored["said"] = self.said[-20_000:] if self.breaches else ""
        return json.dumps(stored)


def draw(options: Options, number: int, kill: bool) -> tuple[Case, random.Random]:
    """The case of that number: the same for the same seed and options."""
    rng = random.Random(f"{options.seed}/{number}")
    if kill and rng.random() < SHARE_KILLED and (not options.only or "kill" in options.only):
        subjects = [name for name in kills.SUBJECTS if not options.commands or any(name.startswith(each) for each in options.commands)]
        if subjects:
            name = rng.choice(subjects)
            model = "unfinished" if name == "train-resume" else "finished"
            return Case(number, name, model, ["kill"], point="next" if rng.random() < 0.75 else "error"), rng
    command = commands.draw(rng, options.commands)
    choice = {name: weight for name, (_, weight) in MUTATORS.items() if not options.only or name in options.only}
    for name in choice.keys() & ONLY_FOR.keys():  # most of what is not read is not worth changing
        choice[name] *= 1 if ONLY_FOR[name] in command.touches or "{artifact}" in command.touches else 0.1
    count = rng.choices((1, 2, 3), (75, 20, 5))[0]
    names = list(dict.fromkeys(rng.choices(list(choice), list(choice.values()), k=count))) if choice else []
    forged = any(name in CONTENTS for name in names) and rng.random() < 0.5
    model = "unfinished" if rng.random() < command.unfinished else "finished"
    return Case(number, command.name, model, names, forged, options.real or rng.random() < SHARE_REAL), rng


def build(options: Options, case: Case, rng: random.Random, place: Path) -> Scene:
    """The scene of a case, made in a process of its own, so that no mutator leaves anything in this one. Raises RuntimeError."""
    described = place.with_name(f"{place.name}.scene")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _build(options, case, rng, place).write(described)
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"case {case.number} ({case.name}) could not be built")
    return Scene.read(described)


def _build(options: Options, case: Case, rng: random.Random, place: Path) -> Scene:
    model = house.build(place, options.scratch / "seed", case.model)
    scene = Scene(place, model, rng, case.command, env=environment(options, place))
    scene.own.append(model)
    scene.artifact = rng.choice(list(commands.ENTRIES))
    scene.aims = commands.aims(commands.COMMANDS[case.command], scene.artifact)
    for name in case.mutators:
        if name in MUTATORS:
            try:
                scene.done.append(f"{name}: {MUTATORS[name][0](scene)}")
            except (OSError, UnicodeError) as error:  # an earlier one has made that impossible: it is immutable, gone, a gigabyte, no text
                scene.done.append(f"{name}: not done, {type(error).__name__}")
    if case.forged:
        forge.forge(scene.model)
    scene.words = commands.words_of(commands.COMMANDS[case.command], scene)
    return scene


def environment(options: Options, place: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "ORT_DISABLE_TELEMETRY") if name in os.environ}
    return kept | {
        "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "TOOLKIT_CACHE": str(place / "cache"),
        "TOOLKIT_MODELS": str(place / "models"), "TOOLKIT_MEMORY_LIMIT": f"{MEMORY_GIB:g}", "TOOLKIT_TIME_LIMIT": f"{WORKER_S}",
        "OMP_NUM_THREADS": "1",
        "MPLCONFIGDIR": str(options.scratch / "seed" / "cache" / "matplotlib"), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def memory_bytes() -> int:
    return int((MEMORY_GIB + BASE_GIB) * 2**30)


def carry_out(options: Options, case: Case, place: Path, plans: "Plans") -> Judged:
    """Builds, runs and judges one case."""
    rng = random.Random(f"{options.seed}/{case.number}/built")
    scene = build(options, case, rng, place)
    before = Before.of(scene)
    limits: dict[str, Any] = {"seconds": options.seconds, "memory_bytes": memory_bytes()}
    if case.point is None:
        ended = run(scene, scene.words, real=case.real, **limits)
        breaches = judge(scene, before, ended)
        return Judged(case, scene.words, scene.done, ended.code, ended.seconds, ended.peak_bytes, breaches, ended.said)
    picture = str(scene.house / "pictures" / "good.png")
    values = {"model": str(scene.model), "picture": picture}
    words = [word.format(**values) for word in commands.COMMANDS[case.command].words.split()]
    follow = [word.format(**values) for word in kills.SUBJECTS[case.command].split()]
    if case.point in ("next", "error"):
        case.point = str(plans.point(case, scene, words, options))
        scene = build(options, case, rng, place)
    before = Before.of(scene)
    ended = kills.disturbed(scene, words, kills.Point.parse(case.point), **limits, real=case.real)
    breaches = judge(scene, before, ended, killed=True, tidy=False)
    if case.point.startswith("mmap:"):  # PyTorch crashes or gives up anyhow where a mapping fails: what is left counts
        breaches = [each for each in breaches if each.kind not in ("exit code", "traceback")]

    def command(more: list[str]) -> Ended:
        return run(scene, more, real=case.real, **limits)

    found, later = kills.aftermath(scene, before, words, follow, command)
    breaches += [each for each in found if each not in breaches]
    said = "\n".join(f"--- {each.code}\n{each.said}" for each in (ended, *later))
    peak = max(each.peak_bytes for each in (ended, *later))
    seconds = sum(each.seconds for each in (ended, *later))
    return Judged(case, words, [f"kill: {case.point}"], ended.code, seconds, peak, breaches, said)


class Plans:
    """Where each command can be killed; each worker takes its own part of the points, one after another, shuffled."""

    def __init__(self, job: int, jobs: int) -> None:
        self.job, self.jobs = job, jobs
        self.left: dict[str, list[kills.Point]] = {}
        self.known: dict[str, int] = {}

    def point(self, case: Case, scene: Scene, words: list[str], options: Options) -> kills.Point:
        rng = random.Random(f"{options.seed}/{case.number}/point")
        if not self.left.get(case.command):
            found = kills.plan(scene, words, options.seconds, memory_bytes())
            if not found:
                raise RuntimeError(f"strace saw {case.command} change nothing")
            self.known[case.command] = len(found)
            order = random.Random(options.seed)
            order.shuffle(found)
            self.left[case.command] = found[self.job :: self.jobs] or found
        if case.point == "error":
            call, error = rng.choice(kills.ERRORS).split(":")
            return kills.Point(call, rng.choice((1, 2, 3, 5, 8, 13, 30, 80, 200, 500)), error)
        return self.left[case.command].pop()
