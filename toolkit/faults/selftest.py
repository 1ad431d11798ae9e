"""The gate's own test: every fault planted in a copy, judged, and counted. A gate that cannot fail proves nothing."""

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.disks import SLACK_BYTES, require_temporary_room
from toolkit.environment import describe
from toolkit.errors import ArtifactError, DiskError, ToolkitError
from toolkit.export import EXPORTERS
from toolkit.faults.fault import BOTH, Fault, NotApplicable, Planted, read_manifest
from toolkit.faults.table import FAULTS
from toolkit.progress import progress, quietly
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from toolkit.validation import ValidationResult

CRASHED = "crash"  # `by` of a fault that made the gate fall over: that is no diagnosis, and does not count as caught
IMAGES = 20  # of the test set, where nobody says how many: the golden images and the file itself catch nearly all
MOST_SAID = 400  # characters
FITTED = frozenset({"preprocessing"})  # stages of faults that a fitted mean and standard deviation could explain: the fit is slow


@dataclass(frozen=True)
class Complaint:
    """One thing that a judge found wrong: the name of its check, or of an error's type, and what it said."""

    by: str
    said: str


Judge = Callable[[Workspace, str, int | None, Path | None], list[Complaint]]  # workspace, artifact, limit, data_dir
Diagnose = Callable[[Workspace, str, Planted], str | None]  # what a debugger says, where that names the fault; else None


class SelfTestRow(BaseModel):
    """One fault in one artifact. `named`: what was said (or a debugger found) names where the fault lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: str
    artifact: str
    stage: str
    caught: bool
    by: str  # the check, or the type of the error; empty where nothing was found
    named: bool
    where: str
    said: str
    seconds: float


class Skipped(BaseModel):
    """A fault that this artifact has no place for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: str
    artifact: str
    reason: str


class SelfTestResult(BaseModel):
    """`kill_rate`: caught, as a share of 1 of what was planted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    rows: list[SelfTestRow]
    not_applicable: list[Skipped]
    kill_rate: float
    environment: dict[str, str]


def self_test(
    workspace: Workspace, *, artifacts: Sequence[str] | None = None, limit: int | None = None, data_dir: Path | None = None,
    faults: Iterable[str] | None = None, judge: Judge | None = None, diagnose: Diagnose | None = None,
) -> SelfTestResult:  # fmt: skip
    """Plants every fault (or the named ones) in every artifact (or the named ones); the workspace itself is only read.

    Raises ToolkitError when the gate fails on an unharmed copy: then nothing that it catches means anything.
    """
    checkpoint = checkpoint_of(workspace)
    chosen = _chosen(faults)
    there = [folder.name for folder in artifact_folders(workspace) if (folder / MANIFEST).is_file()]
    names = [name for name in there if not artifacts or name in artifacts]
    if not names or set(artifacts or ()) - set(there):
        raise ArtifactError(
            f"no artifact {', '.join(artifacts or ('at all',))} in {workspace.exports}; there are: {', '.join(there) or 'none'}"
        )
    rows: list[SelfTestRow] = []
    skipped: list[Skipped] = []
    with progress("planting faults", len(names) * len(chosen), unit="faults") as update, tempfile.TemporaryDirectory() as answers:
        ours = functools.partial(judge_by_validation, cache=Path(answers))  # PyTorch's own answers are computed once
        for number, name in enumerate(names):
            form = _control(workspace, name, judge or ours, limit, data_dir)
            for count, fault in enumerate(chosen, start=number * len(chosen)):
                update(count)
                try:
                    judged_by = judge or functools.partial(ours, fit=fault.stage in FITTED)
                    rows.append(_row(workspace, name, form, fault, checkpoint, judged_by, diagnose, limit, data_dir))
                except NotApplicable as reason:
                    skipped.append(Skipped(fault=fault.id, artifact=name, reason=str(reason)))
    return SelfTestResult(
        model=checkpoint.recipe.name, rows=rows, not_applicable=skipped,
        kill_rate=sum(row.caught for row in rows) / len(rows) if rows else 0.0, environment=describe(),
    )  # fmt: skip


def _chosen(faults: Iterable[str] | None) -> list[Fault]:
    wanted = list(FAULTS) if faults is None else list(faults)
    if unknown := [name for name in wanted if name not in FAULTS]:
        raise ToolkitError(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    return [FAULTS[name] for name in wanted]


def _control(workspace: Workspace, name: str, judge: Judge, limit: int | None, data_dir: Path | None) -> str:
    """The artifact's format. Raises ToolkitError when an unharmed copy does not pass."""
    with copied(workspace, name) as copy:
        complaints = _heard(judge, copy, name, limit, data_dir)
        if complaints:
            said = "; ".join(f"{each.by}: {each.said}" for each in complaints)[:MOST_SAID]
            raise ToolkitError(f"the gate fails on an unharmed copy of {name}, so what it catches means nothing: {said}")
        return Artifact.open(copy.exports / name).format


def _row(
    workspace: Workspace, name: str, form: str, fault: Fault, checkpoint: Checkpoint, judge: Judge, diagnose: Diagnose | None,
    limit: int | None, data_dir: Path | None,
) -> SelfTestRow:  # fmt: skip
    if form not in fault.formats:
        raise NotApplicable(f"not planted in {form} files")
    started = time.monotonic()
    with copied(workspace, name) as copy:
        planted = fault.plant(copy.exports / name, checkpoint)
        complaints = _heard(judge, copy, name, limit, data_dir)
        texts = [each.said for each in complaints]
        named = any(planted.named_in(text) for text in texts)
        if not named and diagnose is not None and (found := diagnose(copy, name, planted)) is not None:
            named, texts = True, [found, *texts]
        return SelfTestRow(
            fault=fault.id, artifact=name, stage=fault.stage, caught=any(each.by != CRASHED for each in complaints),
            by=", ".join(dict.fromkeys(each.by for each in complaints)), named=named, where=planted.where,
            said=" | ".join(texts)[:MOST_SAID], seconds=time.monotonic() - started,
        )  # fmt: skip


@contextmanager
def copied(workspace: Workspace, name: str) -> Iterator[Workspace]:
    """A workspace of its own, with a copy of one artifact and the checkpoint; gone when the block ends. Raises DiskError."""
    size = sum(path.stat().st_size for path in (workspace.exports / name).rglob("*") if path.is_file())
    require_temporary_room(size + SLACK_BYTES)
    with tempfile.TemporaryDirectory(prefix="toolkit-faults-") as folder:
        home = Path(folder) / workspace.folder.name
        home.mkdir()
        shutil.copyfile(workspace.recipe, home / "recipe.toml")
        (home / "checkpoint").symlink_to(workspace.checkpoint.resolve(), target_is_directory=True)
        shutil.copytree(workspace.exports / name, home / "exports" / name)
        yield Workspace(home, home / "recipe.toml")


def _heard(judge: Judge, workspace: Workspace, name: str, limit: int | None, data_dir: Path | None) -> list[Complaint]:
    """What the judge finds; a ToolkitError is a finding, any other exception a fall."""
    try:
        with quietly():
            return judge(workspace, name, limit, data_dir)
    except DiskError:  # that says nothing of the fault
        raise
    except ToolkitError as error:
        return [Complaint(type(error).__name__, str(error).replace(str(workspace.folder), workspace.folder.name))]
    except Exception as error:  # a gate that falls over a damaged file is what a self-test is there to find
        return [Complaint(CRASHED, f"{type(error).__name__}: {error}")]


def judge_by_validation(
    workspace: Workspace, name: str, limit: int | None, data_dir: Path | None, cache: Path, fit: bool = True
) -> list[Complaint]:
    """toolkit.validation on one artifact, with the runtime that proves its format: others read the same file, and some are slow.

    `cache`: a folder of answers that several copies share. `fit`: whether another mean and standard deviation are searched for.
    In this process, which is faster; but Core AI's runtime aborts on a file that is cut (std::bad_cast), so it gets its own.
    """
    from toolkit.validation import validate
    from toolkit.validation.result import REFERENCE

    form = read_manifest(workspace.exports / name).format
    result = validate(
        workspace, runtimes=[REFERENCE, EXPORTERS[form].prover], artifacts=[name], limit=limit, data_dir=data_dir,
        isolate=form not in BOTH, cache=cache, fit=fit,
    )  # fmt: skip
    return complaints_of(result)


def complaints_of(result: "ValidationResult") -> list[Complaint]:
    """A complaint for each check that failed."""
    return [Complaint(check.name, f"{check.name}: {check.figure}. {check.detail}".strip()) for check in result.breaches]
