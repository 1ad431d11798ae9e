"""What one case is made of: the house, and the command with its surroundings."""

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Scene:
    """What the mutators of a case change: files of `house`, and how the command is run.

    `own`: the folders that the command may change. `stdout`: file, closed, full, or pipe (whose reader has gone). `limits`: of
    setrlimit, name → value. `aims`: the parts of the model's folder that the command reads or writes.
    """

    house: Path
    model: Path
    rng: random.Random = field(repr=False, default_factory=random.Random)
    command: str = ""
    artifact: str = "onnx-fp32"
    aims: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    stdout: str = "file"
    limits: dict[str, int] = field(default_factory=dict)
    own: list[Path] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.house / "home"

    def write(self, path: Path) -> None:
        """For the process that runs the command: the mutators run in another one."""
        stored = {key: value for key, value in asdict(self).items() if key != "rng"}
        path.write_text(json.dumps(stored, default=str), encoding="utf-8", errors="surrogateescape")

    @classmethod
    def read(cls, path: Path) -> "Scene":
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        paths = {"house": Path(stored.pop("house")), "model": Path(stored.pop("model"))}
        return cls(**paths, own=[Path(each) for each in stored.pop("own")], **stored)
