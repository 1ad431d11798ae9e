"""What vouches for the evidence from outside of the folder: its digest, kept elsewhere, or a signature, which another tool checks.

Who can change a folder can change its evidence as well. The toolkit signs nothing and holds no keys: minisign and cosign do that.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.files import read_bytes
from toolkit.validation.result import Check

DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
MAX_BYTES = 1 << 20  # of a digest's file, a key, a signature or a bundle
SECONDS = 60.0  # that a tool may take
COPY = "evidence.json"  # what a tool is shown: the bytes that were read, whatever becomes of the file meanwhile


@dataclass(frozen=True)
class Signature:
    """A detached signature of evidence.json, and the public key that it must be of."""

    file: Path
    key: Path


@dataclass(frozen=True)
class Tool:
    """`arguments(evidence, signature, key)`: its own command line. `rejects`: exit codes that mean that the signature is not right."""

    name: str
    key_begins: bytes
    arguments: Callable[[str, str, str], list[str]]
    rejects: Callable[[int], bool]
    install: str
    keys: str


def _minisign(evidence: str, signature: str, key: str) -> list[str]:
    return ["-V", "-q", "-p", key, "-x", signature, "-m", evidence]


def _cosign(evidence: str, signature: str, key: str) -> list[str]:
    bundle = Path(signature).read_bytes().lstrip().startswith(b"{")
    return ["verify-blob", "--key", key, "--bundle" if bundle else "--signature", signature, evidence]


# minisign ends with 1 where a signature is not right, and with 2 where it cannot read something; cosign tells nothing apart
TOOLS = (
    Tool("minisign", b"untrusted comment:", _minisign, lambda code: code == 1, "apt install minisign, brew install minisign",
         "minisign -G"),
    Tool("cosign", b"-----BEGIN PUBLIC KEY-----", _cosign, lambda code: code > 0,
         "https://docs.sigstore.dev/cosign/system_config/installation/, brew install cosign", "cosign generate-key-pair"),
)  # fmt: skip


def digest_of(given: str, folder: Path) -> str:
    """Return the digest that was given: 64 hexadecimal digits, or a file outside `folder` that holds them (`sha256sum` writes such).

    Raises ToolkitError for anything else.
    """
    if found := DIGEST.fullmatch(given.strip()):
        return found[1].lower()
    path = _outside(Path(given), folder, "digest")
    lines = read_bytes(path, MAX_BYTES, advice="Give a sha256, of 64 hexadecimal digits, or a file that holds it").decode(
        "utf-8", "replace"
    )
    rows = [line.split() for line in lines.splitlines() if line.strip()]
    found = DIGEST.fullmatch(rows[0][0]) if len(rows) == 1 and len(rows[0]) <= 2 else None
    if found is None:
        raise ToolkitError(f"{path} holds no digest: one line with a sha256, of 64 hexadecimal digits, is needed")
    return found[1].lower()


def signature_check(content: bytes, signature: Signature, folder: Path) -> Check:
    """Ask the tool of that key whether the signature is of `content`.

    Raises ToolkitError where that could not be found out: no such tool, no such file, a key of another kind, no answer in time.
    """
    key_path = _outside(signature.key, folder, "key")
    key, signed = read_bytes(key_path, MAX_BYTES), read_bytes(signature.file, MAX_BYTES)
    tool = next((each for each in TOOLS if key.lstrip().startswith(each.key_begins)), None)
    if tool is None:
        raise ToolkitError(
            f"{key_path} is no public key of minisign or cosign. Such a key comes from: {', '.join(each.keys for each in TOOLS)}"
        )
    program = shutil.which(tool.name)
    if program is None:
        raise ToolkitError(f"the signature was not checked: {tool.name} is not on the PATH. Install it: {tool.install}")
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for name, bytes_ in ((COPY, content), ("signature", signed), ("key.pub", key)):
            (Path(place) / name).write_bytes(bytes_)
            paths.append(f"{place}/{name}")
        code, words = _run([program, *tool.arguments(*paths)], tool.name, place)
    if code != 0 and not tool.rejects(code):
        raise ToolkitError(f"the signature was not checked: {tool.name} ended with {code}: {words}")
    return Check(
        level="files", name=f"signature, by {tool.name}", artifact="evidence", runtime=None, passed=code == 0,
        figure="is right" if code == 0 else "is not right", gate="is right", why="made with that key, of these very bytes",
        detail="" if code == 0 else f"{tool.name}: {words}",
    )  # fmt: skip


def _run(command: list[str], name: str, place: str) -> tuple[int, str]:
    """(exit code, last words). Nothing can be asked of the user, and no shell is in between."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, cwd=place)
    except subprocess.TimeoutExpired as error:
        raise ToolkitError(f"the signature was not checked: {name} gave no answer within {SECONDS:g} s") from error
    except OSError as error:
        raise ToolkitError(f"the signature was not checked: {name} cannot be run: {error.strerror}") from error
    said = (done.stderr + done.stdout).decode("utf-8", "replace").split()
    return done.returncode, " ".join(said)[-500:] or "it said nothing"


def _outside(path: Path, folder: Path, what: str) -> Path:
    """Raises ToolkitError for what lies in the folder that it is to vouch for."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, or has a NUL in it; links in a circle
        raise ToolkitError(f"{path} cannot be read as a {what}: {error}") from error
    if inside:
        raise ToolkitError(
            f"{path} lies in the folder that it is to vouch for, and proves nothing: who changes the folder changes the {what}"
        )
    return path
