"""Several processes, one validation: each runs the file on its share of the test images; the first one asks, judges and writes.

torchrun starts them (toolkit/ranks.py). Each reads the artifact where the first one does: several machines need a shared folder.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import MANIFEST
from toolkit.checkpoint import CARD, sha256_of
from toolkit.environment import describe
from toolkit.errors import ToolkitError
from toolkit.limits import Limits
from toolkit.ranks import LostRank, Ranks
from toolkit.validation.result import ValidationResult
from toolkit.validation.run import answers_or_reason, in_order
from toolkit.validation.worker import Answers, Job

PATIENCE_S = 3600.0  # beyond what a worker may take: the first rank judges meanwhile
MAY_DIFFER = {"cores", "memory"}


class Dismissed(LostRank):
    """The first rank has no result. It says itself why."""


@dataclass(frozen=True)
class Share:
    """What a rank is handed. `images` is empty where there are more ranks than images. `sha256`: of what lists the artifact's files."""

    job: Job
    images: Any
    sha256: str


@dataclass(frozen=True)
class Crew:
    """All ranks, and how each of them runs workers: under `limits`, and where `isolate`, in processes of their own."""

    ranks: Ranks
    limits: Limits
    isolate: bool

    @property
    def threads(self) -> int | None:
        """Of a worker of this rank: one where there are several on this machine, else as many as its runtime likes."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.ranks.size)) if self.ranks.size > 1 else 1
        return None if here * self.limits.jobs == 1 else 1

    def ask(self, job: Job, images: Any, update: Callable[[int], None]) -> Answers | str:
        """The answers for `images` (N, C, H, W) uint8, or in words why there are none. The progress is the first rank's, for all."""
        size = self.ranks.size
        first, *others = np.array_split(images, size)
        sha256 = _listed(job) if others else ""
        self.ranks.deal([Share(job, part, sha256) for part in (first, *others)])
        try:
            own = answers_or_reason(job, first, self.limits, self.isolate, lambda done: update(min(size * done, len(images))))
        except Exception:  # whatever it is, the others wait to hand in theirs; it is raised again
            with suppress(RuntimeError):  # they may have gone
                self.ranks.collect(None)
            raise
        found = self.ranks.collect(own)
        for rank, answers in enumerate(found):
            if isinstance(answers, str):
                return f"rank {rank} of {size}: {answers}" if size > 1 else answers
        return in_order([answers for answers in found if answers is not None])

    def help(self) -> ValidationResult:
        """The other ranks' part: answers until the first one hands out the result. Raises Dismissed where that has none."""
        while isinstance(dealt := self.ranks.deal(), Share):
            self.ranks.collect(self._answers(dealt))
        if dealt is None:
            raise Dismissed(f"rank {self.ranks.rank} has nothing more to do: rank 0 failed, and says why")
        assert isinstance(dealt, ValidationResult)
        return dealt

    def _answers(self, share: Share) -> Answers | str | None:
        """Only the test images are shared: golden images and pictures are the first rank's, and so are the answers about them."""
        if not len(share.images):
            return None
        if _listed(share.job) != share.sha256:
            return f"{share.job.folder} is not what it is on rank 0: several machines need a shared folder"
        few = share.images[:1].astype(np.float32)
        job = replace(share.job, golden=few, pictures=(), pixels=few[:0], threads=self.threads)
        return answers_or_reason(job, share.images, self.limits, self.isolate, lambda done: None)


def shared(validation: Callable[[Crew], ValidationResult], ranks: Ranks, limits: Limits, isolate: bool) -> ValidationResult:
    """What `validation` finds on the first rank, by the work of all; every rank returns it.

    Raises ToolkitError where a rank has another environment: the report names one. Dismissed where another rank has raised.
    """
    crew = Crew(ranks, limits, isolate)
    ranks.be_patient(limits.seconds + PATIENCE_S)
    environments = ranks.collect(describe())
    if not ranks.leads:
        return crew.help()
    try:
        _refuse_others(environments)
        result = validation(crew)
    except Exception:  # Ctrl-C and SIGTERM reach the others by themselves, who may be in the midst of a share
        with suppress(RuntimeError):  # they may have gone
            ranks.deal([None] * ranks.size)
        raise
    ranks.deal([result] * ranks.size)
    return result


def _listed(job: Job) -> str:
    """sha256 of the file that has those of all others: Artifact.open and Checkpoint.open hold them to it."""
    found = next((path for path in (Path(job.folder, CARD), Path(job.folder, MANIFEST)) if path.is_file()), None)
    return "missing" if found is None else sha256_of(found)


def _refuse_others(environments: list[dict[str, str]]) -> None:
    first = environments[0]
    for rank, other in enumerate(environments):
        for name in sorted((first.keys() | other.keys()) - MAY_DIFFER):
            if first.get(name) != other.get(name):
                raise ToolkitError(
                    f"rank {rank} has {_has(name, other)}, and rank 0 {first.get(name, 'none')}: a report is about one environment. "
                    "Validate on machines that are alike, or on one"
                )


def _has(name: str, environment: dict[str, str]) -> str:
    return f"{name} {environment[name]}" if name in environment else f"no {name}"
