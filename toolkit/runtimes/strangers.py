"""Admit a stranger's model file before a library opens it: what could run code from the file is refused, unless it is trusted.

PyTorch's formats can hold programs. TorchScript's ops write files; a pickle calls any function. An .onnx or .mlpackage file holds
numbers and ops of the runtime only, and what such a runtime refuses of itself is tested: data outside the file's own folder, custom ops.
"""

import zipfile
from pathlib import Path

from toolkit.errors import ArtifactError
from toolkit.files import opened
from toolkit.limits import MAX_WEIGHTS_BYTES
from toolkit.workers import Message, call
from toolkit.workers.child import Link

SCRIPTS = (".pt", ".ts", ".torchscript")
MEANS = "It runs code from the file with your rights: it can read, change and send whatever you can"
TRUSTED = "{name} is loaded unchecked, because --trust was given. " + MEANS + "."


def needs_trust(path: Path) -> bool:
    """Whether the format is one that can run code, so that `trust` changes what is done."""
    return path.suffix.lower() in (".pt2", *SCRIPTS)


def admit(path: Path, folder: Path, trust: bool = False) -> Path:
    """Return the path that a library may open: `path`, or a checked copy in `folder`. Raises ArtifactError for what could run code.

    `trust`: whoever asks trusts who made the file, and takes it as it is.
    """
    suffix = path.suffix.lower()
    if suffix in SCRIPTS:
        _check_script(path, trust)
    elif suffix == ".pt2" and not trust:
        from toolkit.runtimes.pt2 import checked_copy

        return checked_copy(path, folder)
    elif not path.is_dir():  # a package is one
        opened(path, MAX_WEIGHTS_BYTES, raises=ArtifactError, advice="Give a model file").close()
    return path


def admitted(path: Path, folder: Path, trust: bool = False) -> Path:
    """Do as `admit` does, in a worker. Raises WorkerLost as well."""
    found = call("admit", Message({"path": str(path.absolute()), "folder": str(folder.absolute()), "trust": trust}))
    return folder / path.name if found.fields.get("copied") is True else path


def task(request: Message, link: Link) -> Message:
    """The task `admit`."""
    path, folder = Path(request.fields["path"]), Path(request.fields["folder"])
    return Message({"copied": admit(path, folder, request.fields["trust"]) != path})


def _check_script(path: Path, trust: bool) -> None:
    """Raises ArtifactError for what is not TorchScript, trusted or not, and for TorchScript that is not trusted."""
    kind = _kind(path)
    if kind == "torchscript":
        if not trust:
            raise ArtifactError(
                f"{path} is TorchScript, a program that can write files, and nothing can check it. Ask for an exported program "
                f"(torch.export.save, .pt2) or an .onnx file; or give --trust, if you trust whoever made it. {MEANS}"
            )
    elif kind == "pickle":
        raise ArtifactError(
            f"{path} is a pickle (torch.save): weights, or a module in Python's own terms, not a program that can be timed; and to "
            "read it can run any code. Load it where it was made, and save the model with torch.export.save (.pt2)"
        )
    elif kind == "pt2":
        raise ArtifactError(f"{path} is an exported program. Rename it, so that its name ends in .pt2")
    else:
        raise ArtifactError(f"{path} cannot be loaded as TorchScript: it is no archive that torch.jit.save has written")


def _kind(path: Path) -> str | None:
    """'torchscript', 'pickle', 'pt2', or None; by the names in it alone."""
    with opened(path, MAX_WEIGHTS_BYTES, raises=ArtifactError, advice="Give a model file") as file:
        start = file.read(4)
        if start[:1] == b"\x80":  # the protocol of a pickle: torch.save before 1.6
            return "pickle"
        try:
            with zipfile.ZipFile(file) as archive:
                names = {name.partition("/")[2] for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return None
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "torchscript"
    return "pt2" if "archive_format" in names else "pickle" if "data.pkl" in names else None
