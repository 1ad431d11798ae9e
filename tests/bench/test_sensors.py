"""The machine's state: what it says, and None where it does not. macOS's programs are fakes on PATH."""

import os
import stat
import sys
from pathlib import Path

import pytest

from toolkit.bench import sensors


@pytest.fixture
def mac(monkeypatch, tmp_path: Path):
    """A machine that says it is macOS; `say(program, text)` puts a program on its PATH."""
    monkeypatch.setattr(sensors.sys, "platform", "darwin")
    monkeypatch.setenv("PATH", str(tmp_path))

    def say(program: str, text: str, code: int = 0) -> None:
        path = tmp_path / program
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.write({text!r})\nsys.exit({code})\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return say


@pytest.mark.parametrize(("text", "level"), [
    ("com.apple.system.thermalpressurelevel 0\n", 0), ("com.apple.system.thermalpressurelevel 2\n", 2), ("nothing\n", None),
])  # fmt: skip
def test_thermal_pressure_is_what_notifyutil_says(mac, text, level):
    mac("notifyutil", text)
    assert sensors.thermal() == level


def test_a_program_that_fails_or_is_not_there_says_nothing(mac):
    assert sensors.thermal() is None
    mac("notifyutil", "com.apple.system.thermalpressurelevel 0", code=1)
    assert sensors.thermal() is None


@pytest.mark.parametrize(("source", "saving", "expected"), [
    ("Now drawing from 'AC Power'\n", " lowpowermode         0\n", (True, False)),
    ("Now drawing from 'Battery Power'\n", " lowpowermode         1\n", (False, True)),
    ("Now drawing from 'AC Power'\n", " sleep 1\n", (True, None)),
])  # fmt: skip
def test_power_is_what_pmset_says(mac, monkeypatch, source, saving, expected):
    real = sensors._said
    mac("pmset", source)
    monkeypatch.setattr(sensors, "_said", lambda program, *words: real(program, *words) if "batt" in words else saving)
    assert (sensors._on_mains(), sensors._low_power()) == expected


def test_off_macos_nothing_is_asked_of_its_programs(monkeypatch):
    monkeypatch.setattr(sensors.sys, "platform", "linux")
    monkeypatch.setattr(sensors.subprocess, "run", lambda *_, **__: pytest.fail("it was asked"))
    assert (sensors.thermal(), sensors._low_power()) == (None, None)


def test_a_hot_machine_is_waited_for_and_not_for_ever(monkeypatch):
    levels, waited = [2, 1, 0], []
    monkeypatch.setattr(sensors, "thermal", lambda: levels.pop(0))
    assert sensors.cool_down(waited.append) == 2 * sensors.COOL_STEP_S == sum(waited)
    monkeypatch.setattr(sensors, "thermal", lambda: 2)
    assert sensors.cool_down(waited.append) == sensors.COOL_LIMIT_S
    monkeypatch.setattr(sensors, "thermal", lambda: None)
    assert sensors.cool_down(lambda s: pytest.fail("it waited")) == 0


def test_a_quota_is_read_from_the_cgroup_of_this_process(monkeypatch, tmp_path: Path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("1:cpu:/old\n0::/jobs/mine\n")
    (tmp_path / "jobs/mine").mkdir(parents=True)
    (tmp_path / "jobs/mine/cpu.stat").write_text("usage_usec 9\nnr_throttled 3\nthrottled_usec 2500000\n")
    monkeypatch.setattr(sensors, "PROC", tmp_path)
    monkeypatch.setattr(sensors, "CGROUP", tmp_path)
    assert sensors._throttled() == 2.5
    (tmp_path / "jobs/mine/cpu.stat").write_text("usage_usec 9\n")
    assert sensors._throttled() is None


@pytest.mark.parametrize(("online", "mains"), [("1", True), ("0", False), (None, None)])
def test_linux_says_whether_it_is_on_mains_where_it_knows(monkeypatch, tmp_path: Path, online, mains):
    monkeypatch.setattr(sensors.sys, "platform", "linux")
    monkeypatch.setattr(sensors, "SUPPLIES", tmp_path)
    if online is not None:
        (tmp_path / "AC").mkdir()
        (tmp_path / "AC/type").write_text("Mains\n")
        (tmp_path / "AC/online").write_text(f"{online}\n")
    assert sensors._on_mains() is mains


def test_reading_it_twice_shows_the_time_and_the_work_in_between():
    before = sensors.read()
    total = sum(range(3_000_000))
    after = sensors.read()
    assert total
    assert after.perf_ns > before.perf_ns
    assert after.own_s > before.own_s
    assert after.busy_s >= before.busy_s
    assert before.load == pytest.approx(os.getloadavg()[0], abs=5)
