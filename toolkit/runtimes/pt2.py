"""Check an exported program (.pt2) before torch reads it, and write a copy that holds only what was checked.

`torch.export.load` is not for files of strangers. It unpickles weights, constants and sample inputs, loads compiled code, executes
`guards_code`, evaluates expressions as Python, and looks up any function by its name. So torch never sees the file itself: it is read
here with Python's zipfile and a strict schema (pt2_schema.py), and what torch is given is an archive that we have written.
"""

import itertools
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from toolkit.errors import ArtifactError
from toolkit.files import opened
from toolkit.limits import MAX_WEIGHTS_BYTES
from toolkit.runtimes.pt2_payloads import Payloads
from toolkit.runtimes.pt2_schema import Program

MAX_MEMBERS = 100_000
MAX_JSON_BYTES = 16 << 20  # the program of a ResNet-50 has 1 MB, most of it notes
PROGRAM = "models/model.json"
FORMAT, VERSION = "archive_format", "archive_version"
FOLDERS = {"weight": "data/weights/", "tensor": "data/constants/"}  # by how names of their files begin
CONFIGS = {"weight": "data/weights/model_weights_config.json", "tensor": "data/constants/model_constants_config.json"}
SAMPLES = "data/sample_inputs/model.pt"
ITEM_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2, 29: 1, 30: 1, 31: 1, 32: 1, 33: 1, 34: 4,
    35: 8,
}  # fmt: skip  # by ScalarType of torch/_export/serde/schema.py
SAFE_WAY = (
    "Ask for a file that holds numbers and ops only: torch.export.save of torch 2.9 or later, of a program without custom objects or "
    "tensor subclasses. Or give --trust, if you trust whoever made it: it then runs code from the file with your rights"
)
# What else may lie in an archive: (pattern, what it is, whether it is simply left out of the copy).
KNOWN: tuple[tuple[str, str, bool], ...] = (
    (r"data/sample_inputs/.*", "a pickle of sample inputs", True),
    (r"(byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)", "about the archive", True),
    (r"extra/.*", "a note of its author", True),
    (r"data/aotinductor/.*", "compiled code, which would be loaded into the process and run", False),
    (r"data/(weights|constants)/[^/]*\.pt", "a pickle of weights (torch 2.8 and earlier), which runs code when it is read", False),
    (r"data/constants/(custom|opaque)_obj_.*", "a custom object, which is a pickle and runs code when it is read", False),
    (r"models/.*", "a second program", False),
)
AnyModel = TypeVar("AnyModel", bound=BaseModel)


def checked_copy(path: Path, folder: Path) -> Path:
    """Return the path of a copy in `folder` that torch.export.load may read. Raises ArtifactError for a file that could run code."""
    copy = folder / path.name
    with opened(path, MAX_WEIGHTS_BYTES, raises=ArtifactError, advice="Give a .pt2 file") as file:
        archive = _Archive(path, file)
        program = archive.read(PROGRAM, Program)
        payloads = {kind: archive.read(member, Payloads) for kind, member in CONFIGS.items()}
        names = {kind: _files(archive, kind, payload) for kind, payload in payloads.items()}
        for member in archive.members:
            if member not in (FORMAT, VERSION, PROGRAM, *CONFIGS.values(), *names["weight"], *names["tensor"]):
                _judge(path, member)
        with zipfile.ZipFile(copy, "x") as written:
            for member, text in ((FORMAT, b"pt2"), (VERSION, b"0"), ("byteorder", b"little"), (".data/version", b"6\n"), (SAMPLES, b"")):
                written.writestr(f"model/{member}", text)
            written.writestr(f"model/{PROGRAM}", _json(program))
            for kind, payload in payloads.items():
                written.writestr(f"model/{CONFIGS[kind]}", _json(payload))
            for member in sorted(names["weight"] | names["tensor"]):
                with archive.open(member) as source, written.open(f"model/{member}", "w", force_zip64=True) as target:
                    archive.copy(member, source, target)
    return copy


class _Archive:
    """A zip file as torch writes it: one folder at the top, nothing compressed, no two members of one name, none within another."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        if file.read(4) != b"PK\x03\x04":
            raise ArtifactError(f"{path} is no exported program: it does not begin as a zip file does. {SAFE_WAY}")
        try:
            self.zip = zipfile.ZipFile(file)
            found = self.zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RecursionError) as error:
            raise ArtifactError(f"{path} is no exported program: {error}. {SAFE_WAY}") from error
        if len(found) > MAX_MEMBERS:
            raise ArtifactError(f"{path} has {len(found)} members, more than {MAX_MEMBERS}")
        self.members: dict[str, zipfile.ZipInfo] = {}
        tops = {info.filename.partition("/")[0] for info in found}
        if len(tops) != 1 or f"{tops.copy().pop()}/{FORMAT}" not in {info.filename for info in found}:
            raise ArtifactError(f"{path} is no exported program of torch 2.9 or later: {self._other(found)}. {SAFE_WAY}")
        for info in found:
            name = info.filename.partition("/")[2]
            if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", name) or ".." in name or name in self.members:
                raise ArtifactError(
                    f"{path} has a member called {name[:80]!r}, twice or in a way that torch does not. Do not use this file"
                )
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise ArtifactError(f"{path}: {name} is compressed or encrypted, which torch does not do. Do not use this file")
            self.members[name] = info
        ends = sorted((info.header_offset, info.header_offset + info.file_size) for info in found)
        if any(end > start for (_, end), (start, _) in itertools.pairwise(ends)):
            raise ArtifactError(f"{path} has members that lie within one another. Do not use this file")
        if self._content(FORMAT, 16) != b"pt2":
            raise ArtifactError(f"{path} is no exported program: its {FORMAT} is another one. {SAFE_WAY}")
        if "byteorder" in self.members and self._content("byteorder", 16) != b"little":
            raise ArtifactError(f"{path} holds numbers in the order of another computer (big-endian). Save it again on a common one")

    def _other(self, found: list[zipfile.ZipInfo]) -> str:
        names = {info.filename.rpartition("/")[2] for info in found}
        if "serialized_exported_program.json" in names:
            return "it is one of torch 2.7 or earlier, whose weights are a pickle, which runs code when it is read"
        if "data.pkl" in names:
            return "it is TorchScript, or a pickle (torch.save), which runs code when it is read"
        return f"it has no {FORMAT}"

    def _content(self, member: str, most: int) -> bytes:
        info = self.members.get(member)
        if info is None:
            raise ArtifactError(f"{self.path} has no {member}, so it is no exported program of torch 2.9 or later. {SAFE_WAY}")
        if info.file_size > most:
            raise ArtifactError(f"{self.path}: {member} has {info.file_size:,} bytes; at most {most:,} are read")
        with self.open(member) as source:
            try:
                return bytes(source.read())
            except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
                raise ArtifactError(f"{self.path}: {member} cannot be read: {error}. Copy the file again") from error

    def read(self, member: str, model: type[AnyModel]) -> AnyModel:
        try:
            return model.model_validate_json(self._content(member, MAX_JSON_BYTES))
        except (ValidationError, RecursionError) as error:
            raise ArtifactError(f"{self.path} is not run: {member}: {_fault(error)}. {SAFE_WAY}") from error

    def open(self, member: str) -> Any:
        try:
            return self.zip.open(self.members[member])
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, NotImplementedError) as error:
            raise ArtifactError(f"{self.path}: {member} cannot be read: {error}. Copy the file again") from error

    def copy(self, member: str, source: Any, target: Any) -> None:
        try:
            shutil.copyfileobj(source, target, 1 << 20)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:  # not OSError: that is of the disk that is written to
            raise ArtifactError(f"{self.path}: {member} cannot be read: {error}. Copy the file again") from error


def _files(archive: _Archive, kind: str, payloads: Payloads) -> set[str]:
    """Members that hold numbers. Raises ArtifactError where one is missing, or smaller than what is said to be in it."""
    found = set()
    for name, dtype, elements in payloads.files():
        member = FOLDERS[kind] + name
        if not name.startswith(f"{kind}_") or member not in archive.members:
            raise ArtifactError(f"{archive.path}: {CONFIGS[kind]} names {name}, which is not there. Copy the file again")
        size, needed = archive.members[member].file_size, elements * ITEM_BYTES.get(dtype, 16)
        if (size and needed > size) or needed > MAX_WEIGHTS_BYTES:
            raise ArtifactError(f"{archive.path}: {member} has {size:,} bytes, and is said to hold {needed:,}. Copy the file again")
        found.add(member)
    return found


def _judge(path: Path, member: str) -> None:
    """Raises ArtifactError unless this member may be left out of the copy."""
    what, harmless = next(
        ((what, harmless) for pattern, what, harmless in KNOWN if re.fullmatch(pattern, member)), ("nothing known", False)
    )
    if not harmless:
        raise ArtifactError(f"{path} is not run: {member} is {what}. {SAFE_WAY}")


def _fault(error: ValidationError | RecursionError) -> str:
    """The first fault, where it is, and what it is."""
    if isinstance(error, RecursionError):
        return "it is nested more deeply than any program"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place[-120:]}{': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"


def _json(model: BaseModel) -> bytes:
    """As it was given: what the file leaves out stays out. `Infinity` is written as torch writes it."""
    return json.dumps(model.model_dump(exclude_unset=True)).encode()
