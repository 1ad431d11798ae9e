"""The machine's own state around a measurement. What a machine does not say is None, never a guess. macOS is driven through fakes here."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from toolkit.bench.result import Sensors

NOMINAL = 0
COOL_LIMIT_S, COOL_STEP_S = 300.0, 5.0  # MLPerf Mobile waits five minutes between benchmarks
PROC, CGROUP, SUPPLIES = Path("/proc"), Path("/sys/fs/cgroup"), Path("/sys/class/power_supply")


def read(power: bool = True) -> Sensors:
    """Takes some milliseconds, and with `power` on macOS some dozens: never inside a timed phase."""
    import psutil

    cpu, own = psutil.cpu_times(), os.times()
    steal = getattr(cpu, "steal", None)
    idle = cpu.idle + getattr(cpu, "iowait", 0.0)
    guest = getattr(cpu, "guest", 0.0) + getattr(cpu, "guest_nice", 0.0)  # in `user` already
    return Sensors(
        perf_ns=time.perf_counter_ns(), wall_ns=time.time_ns(), busy_s=sum(cpu) - idle - guest - (steal or 0.0),
        own_s=own.user + own.system, switches=_switches(), load=os.getloadavg()[0], thermal=thermal() if power else None,
        on_mains=_on_mains() if power else None, low_power=_low_power() if power else None, steal_s=steal, throttled_s=_throttled(),
    )  # fmt: skip


def _switches() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def thermal() -> int | None:
    """macOS's thermal pressure level, without root."""
    found = _said("notifyutil", "-g", "com.apple.system.thermalpressurelevel")
    return int(match[1]) if found and (match := re.search(r"thermalpressurelevel\s+(\d+)", found)) else None


def _on_mains() -> bool | None:
    if sys.platform == "darwin":
        found = _said("pmset", "-g", "batt")
        return None if not found else "AC Power" in found
    supplies = [path for path in SUPPLIES.glob("*/type") if path.read_text(encoding="utf-8").strip() in ("Mains", "USB")]
    states = [path.with_name("online") for path in supplies]
    return any(path.read_text(encoding="utf-8").strip() == "1" for path in states if path.is_file()) if states else None


def _low_power() -> bool | None:
    found = _said("pmset", "-g")
    match = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", found or "", re.MULTILINE)
    return None if match is None else match[1] == "1"


def _said(program: str, *arguments: str) -> str | None:
    """What a program of macOS prints; None on another system, or where it fails."""
    if sys.platform != "darwin":
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _throttled() -> float | None:
    """Of this process's cgroup (version 2), in seconds: how long a quota held it back."""
    try:
        own = next(line for line in (PROC / "self/cgroup").read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
        lines = (CGROUP / own[3:].lstrip("/") / "cpu.stat").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("throttled_usec "))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def cool_down(wait: Callable[[float], None] = time.sleep) -> float:
    """Waits until macOS reports no thermal pressure, five minutes at most. The seconds waited; 0 where nothing is known of heat."""
    waited = 0.0
    while (level := thermal()) is not None and level > NOMINAL and waited < COOL_LIMIT_S:
        wait(COOL_STEP_S)
        waited += COOL_STEP_S
    return waited
