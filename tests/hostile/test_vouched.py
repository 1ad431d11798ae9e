"""A digest or a signature from outside of the folder: what is given must be checked, or it is said why it was not; never believed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import main
from toolkit.errors import ToolkitError
from toolkit.validation import Signature, outside, verify

COSIGN_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
MINISIGN_KEY = "untrusted comment: minisign public key AFF955152FEA1904\nRWQEGeovFVX5r8XSZL2CFabzcpmBQDPIVqlMaFdtb8QMHwqT3e30tEaP\n"
GOOD = "a" * 64


@pytest.fixture
def bare(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the released model of which nothing is run: what speaks for the evidence does not depend on it."""
    for name in ("_computed", "_report", "_data"):
        monkeypatch.setattr(f"toolkit.validation.verification.{name}", lambda *_: iter(()))
    return model


def digest_of(model: Path) -> str:
    return verify(model, isolate=False).digest


def code_of(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def tool(folder: Path, name: str, body: str) -> None:
    """A program of that name that runs a Python body; `given` are its arguments."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, time\nfrom pathlib import Path\ngiven = sys.argv[1:]\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_the_digest_that_validate_prints_is_that_of_the_evidence(bare: Path, capfd: pytest.CaptureFixture[str]):
    digest = digest_of(bare)
    assert digest == subprocess.run(["sha256sum", bare / "reports/evidence.json"], capture_output=True, text=True, check=True).stdout[:64]
    assert code_of("verify", bare) in (0, 1)
    out = capfd.readouterr().out
    assert f"digest: {digest}" in out
    assert "This proves that the folder is consistent with itself. Who can change the folder can change its evidence" in out


@pytest.mark.parametrize("form", ["{0}", "sha256:{0}", "{1}", "file {0}\n", "file {0}  evidence.json\n", "file \n{1}\n\n"])
def test_a_digest_is_taken_as_it_is_and_from_a_file(form: str, bare: Path, tmp_path: Path):
    digest = digest_of(bare)
    text = form.format(digest, digest.upper())
    if text.startswith("file "):
        (tmp_path / "kept.txt").write_text(text[5:], encoding="utf-8")
        text = str(tmp_path / "kept.txt")
    result = verify(bare, isolate=False, digest=text)
    assert result.vouched
    assert [check.passed for check in result.checks if check.name == "digest"] == [True]


def test_another_digest_fails(bare: Path, capfd: pytest.CaptureFixture[str]):
    assert code_of("verify", bare, "--digest", GOOD) == 1
    out = capfd.readouterr().out
    assert "FAILED" in out
    assert "PASSED" not in out


@pytest.mark.parametrize(("given", "says"), [
    ("xyz", "cannot be read"), ("", "cannot be read|regular"), (GOOD[:-1], "cannot be read"), ("0x" + GOOD, "cannot be read"),
    ("folder", "a folder, not a regular file"), ("fifo", "a FIFO"), ("empty.txt", "holds no digest"), ("two.txt", "holds no digest"),
    ("long.txt", "at most"), ("binary.txt", "holds no digest"), ("models/tiny/digest.txt", "proves nothing"),
    ("link.txt", "proves nothing"), ("n" * 5000, "cannot be read"), ("nul\0", "cannot be read"),
])  # fmt: skip
def test_what_is_no_digest_is_bad_input(given: str, says: str, bare: Path, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "two.txt").write_text(f"{GOOD}\n{GOOD}\n", encoding="utf-8")
    (tmp_path / "long.txt").write_bytes(b" " * (2 << 20))
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (bare / "digest.txt").write_text(GOOD, encoding="utf-8")
    (tmp_path / "link.txt").symlink_to(bare / "digest.txt")
    with pytest.raises(ToolkitError, match=says):
        verify(bare, isolate=False, digest=given)


def _signature(tmp_path: Path, key: str, signature: str = "untrusted comment: x\n") -> Signature:
    (tmp_path / "key.pub").write_text(key, encoding="utf-8")
    (tmp_path / "evidence.sig").write_text(signature, encoding="utf-8")
    return Signature(tmp_path / "evidence.sig", tmp_path / "key.pub")


MINISIGN = """
assert given[:3] == ["-V", "-q", "-p"] and given[4] == "-x" and given[6] == "-m" and len(given) == 8, given
key, signature, evidence = (Path(given[n]).read_bytes() for n in (3, 5, 7))
assert key.startswith(b"untrusted comment: minisign") and signature == b"untrusted comment: x\\n" and b"report_sha256" in evidence
assert Path(given[7]).is_absolute()
"""
COSIGN = """
assert given[:2] == ["verify-blob", "--key"] and given[3] == {option!r} and len(given) == 6, given
assert Path(given[2]).read_bytes().startswith(b"-----BEGIN") and b"report_sha256" in Path(given[5]).read_bytes()
"""


@pytest.mark.parametrize(("name", "key", "body", "signature"), [
    ("minisign", MINISIGN_KEY, MINISIGN, "untrusted comment: x\n"), ("cosign", COSIGN_KEY, COSIGN.format(option="--signature"), "MEUCIQ=="),
    ("cosign", COSIGN_KEY, COSIGN.format(option="--bundle"), '{"mediaType": "…"}'),
])  # fmt: skip
@pytest.mark.parametrize(("code", "passed"), [(0, True), (1, False)])
def test_the_tool_of_the_key_is_asked_about_the_very_bytes(
    name: str, key: str, body: str, signature: str, code: int, passed: bool, bare: Path, tools: Path, tmp_path: Path
):
    tool(tools, name, f"{body}\nprint('Signature \\x1b[32mverified')\nsys.exit({code})")
    result = verify(bare, isolate=False, signature=_signature(tmp_path, key, signature))
    assert result.vouched
    (check,) = [check for check in result.checks if check.name == f"signature, by {name}"]
    assert check.passed is passed
    assert passed or "Signature" in check.detail


@pytest.mark.parametrize(("name", "key", "body", "says"), [
    ("minisign", MINISIGN_KEY, None, "was not checked: minisign is not on the PATH. Install it: apt install minisign"),
    ("cosign", COSIGN_KEY, None, "was not checked: cosign is not on the PATH. Install it: https"),
    ("minisign", MINISIGN_KEY, "sys.exit(2)", "was not checked: minisign ended with 2: it said nothing"),
    ("minisign", MINISIGN_KEY, "import os; os.kill(os.getpid(), 9)", "was not checked: minisign ended with -9"),
    ("cosign", COSIGN_KEY, "import os; os.kill(os.getpid(), 9)", "was not checked: cosign ended with -9"),
    ("minisign", MINISIGN_KEY, "time.sleep(60)", "no answer within 1 s"),
    ("minisign", "RWQEGeovFVX5", "sys.exit(0)", "is no public key of minisign or cosign"),
    ("minisign", "", "sys.exit(0)", "is no public key of minisign or cosign"),
])  # fmt: skip
def test_a_signature_that_could_not_be_checked_is_bad_input(
    name: str, key: str, body: str | None, says: str, bare: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outside, "SECONDS", 1.0)
    if body is not None:
        tool(tools, name, body)
    with pytest.raises(ToolkitError, match=says):
        verify(bare, isolate=False, signature=_signature(tmp_path, key))


def test_a_key_from_the_folder_itself_proves_nothing(bare: Path, tools: Path, tmp_path: Path):
    tool(tools, "minisign", "sys.exit(0)")
    signature = _signature(tmp_path, MINISIGN_KEY)
    shutil.move(signature.key, bare / "key.pub")
    (tmp_path / "link.pub").symlink_to(bare / "key.pub")
    for key in (bare / "key.pub", tmp_path / "link.pub"):
        with pytest.raises(ToolkitError, match=r"proves nothing: who changes the folder changes the key"):
            verify(bare, isolate=False, signature=Signature(signature.file, key))


def test_signature_and_key_belong_together(bare: Path, capfd: pytest.CaptureFixture[str]):
    for flag in ("--signature", "--key"):
        assert code_of("verify", bare, flag, bare / "recipe.toml") == 2
    assert "--signature and --key belong together" in capfd.readouterr().err


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed: apt install minisign")
def test_minisign_itself(bare: Path, tmp_path: Path):
    evidence, key = bare / "reports/evidence.json", tmp_path / "own.pub"
    for name in ("own", "another"):
        subprocess.run(["minisign", "-G", "-W", "-p", f"{name}.pub", "-s", f"{name}.key"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["minisign", "-S", "-s", "own.key", "-m", evidence], cwd=tmp_path, check=True, capture_output=True)
    signature = evidence.with_name("evidence.json.minisig")
    by = "signature, by minisign"

    def passed(key: Path) -> list[bool | None]:
        return [check.passed for check in verify(bare, isolate=False, signature=Signature(signature, key)).checks if check.name == by]

    assert passed(key) == [True]
    assert passed(tmp_path / "another.pub") == [False]
    evidence.write_bytes(evidence.read_bytes() + b"\n")
    assert passed(key) == [False]
    signature.write_text("untrusted comment: nonsense\n", encoding="utf-8")
    with pytest.raises(ToolkitError, match="was not checked: minisign ended with 2"):
        passed(key)
