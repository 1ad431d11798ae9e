"""What is recorded beside every figure."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version

import psutil
import pytest

from toolkit import __version__, environment


def test_the_description_is_text_and_names_machine_system_and_versions():
    found = environment.describe()
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["cores"] == str(os.cpu_count())
    assert abs(int(found["memory"].removesuffix(" GiB")) - psutil.virtual_memory().total / 2**30) <= 0.5
    assert found["python"] == platform.python_version()
    assert found["toolkit"] == __version__
    assert found["torch"] == version("torch")
    assert found["numpy"] == version("numpy")


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-of-anyone"))
    found = environment.describe()
    assert "numpy" in found
    assert "no-such-package-of-anyone" not in found
    assert environment.installed("no-such-package-of-anyone") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("processor : 0\nmodel name\t: A Fast One @ 3: GHz\nmodel name\t: Another\n", "A Fast One @ 3: GHz"), ("processor : 0\n", "aarch64")],
    ids=["x86", "arm, where the kernel gives no name"],
)
def test_linux_gives_the_name_in_cpuinfo_else_the_instruction_set(tmp_path, monkeypatch, text, name):
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment.processor() == name


def test_macos_gives_the_name_of_sysctl(monkeypatch: pytest.MonkeyPatch):
    def run(command, **_):
        assert command == ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, stdout="Apple M4 Pro\n")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment.processor() == "Apple M4 Pro"


def test_another_system_gives_what_python_knows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert environment.processor() == "AMD64"


def test_a_line_says_all_of_it():
    assert environment.in_words({"processor": "a thing", "torch": "2.13.0"}) == "processor a thing, torch 2.13.0"
