"""A library that reports home does not: nothing is written into the user's folder, and nothing is left in the temporary one."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import toolkit
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def test_onnxruntime_writes_no_device_id(exported, tmp_path: Path):
    home, scratch = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    scratch.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    model = exported.exports / "onnx-fp32/model.onnx"
    subprocess.run([sys.executable, "-c", PROGRAM, str(model)], env=environment, check=True)
    assert [str(path) for path in (*home.rglob("*"), *scratch.rglob("*"))] == []
