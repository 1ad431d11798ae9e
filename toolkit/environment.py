"""Where a figure was made: machine, system, versions. Recorded beside every figure."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit import __version__

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "torchvision", "coremltools", "onnx", "onnxruntime", "coreai-torch", "coreai-core", "numpy")


def describe() -> dict[str, str]:
    """name → value: processor, cores, memory, system, Python, and the packages that are installed."""
    import psutil

    found = {
        "processor": processor(),
        "cores": f"{os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "toolkit": __version__,
    }
    return found | {name: there for name in PACKAGES if (there := installed(name)) is not None}


def in_words(described: dict[str, str]) -> str:
    """In one line, for the head of a table."""
    return ", ".join(f"{name} {value}" for name, value in described.items())


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as its maker gives it; platform.processor() says only the instruction set."""
    if sys.platform == "darwin":
        return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False).stdout.strip()
    if sys.platform == "linux":
        with CPUINFO.open(encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.machine()
    return platform.processor() or platform.machine()
