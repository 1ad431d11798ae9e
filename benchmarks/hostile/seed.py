"""What every case starts from: the tiny model finished and interrupted, pictures, and model files from elsewhere. Made once."""

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

TINY = """
name = "tiny"
description = "a small network on the embedded digits, for the fuzzer"
[data]
set = "digits"
[network]
builder = "small-cnn"
[preprocess]
size = 32
mean = 0.1558
std = 0.2774
[train]
epochs = 3
batch_size = 32
lr = 0.1
schedule = "one-cycle"
"""


def make(folder: Path) -> None:
    """`folder`/finished, /unfinished, /pictures and /files. Raises RuntimeError where a command of the toolkit fails."""
    environment = {**os.environ, "TOOLKIT_CACHE": str(folder / "cache"), "MPLCONFIGDIR": str(folder / "cache" / "matplotlib")}
    for name in ("finished", "unfinished"):
        (folder / name).mkdir(parents=True)
        text = TINY if name == "finished" else TINY.replace("epochs = 3", "epochs = 12")
        (folder / name / "recipe.toml").write_text(text, encoding="utf-8")
    finished = str(folder / "finished")
    _toolkit(environment, "train", finished, "--device", "cpu")
    _toolkit(environment, "export", finished, "--format", "onnx", "--format", "coreml", "--format", "coreai")
    _toolkit(environment, "validate", finished)
    _toolkit(environment, "bench", finished, "--quick", "--runtime", "onnxruntime-cpu")
    _toolkit(environment, "report", finished)
    _interrupted(environment, folder / "unfinished")
    _pictures(folder / "pictures")
    files = folder / "files"
    files.mkdir()
    subprocess.run([sys.executable, "-m", "benchmarks.hostile.foreign", str(files)], check=True, stdout=subprocess.DEVNULL)


def _toolkit(environment: dict[str, str], *words: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "toolkit", *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"toolkit {' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _interrupted(environment: dict[str, str], folder: Path) -> None:
    """Ctrl-C once a checkpoint is there from which training can go on."""
    words = ["train", str(folder), "--device", "cpu", "--save-minutes", "0"]
    process = subprocess.Popen([sys.executable, "-P", "-m", "toolkit", *words], env=environment, stdout=-3, stderr=-3)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoint/*resume*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    if not list(folder.glob("checkpoint/*resume*")):
        raise RuntimeError(f"training into {folder} left nothing to go on from, after {' '.join(words)}")


def _pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    Image.effect_mandelbrot((32, 32), (-2, -1.5, 1, 1.5), 20).save(folder / "good.png")
    Image.new("RGB", (40, 20), "white").save(folder / "white.jpg")
    good = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture", encoding="utf-8")
    (folder / "huge.png").write_bytes(_png(60000, 60000))
    (folder / "wide.png").write_bytes(_png(2**31 - 1, 1))
    (folder / "odd\x1b[31mPASSED\n\u202e.png").write_bytes(good)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(good)
    (folder / ("n" * 240 + ".png")).write_bytes(good)
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.png")
    Image.new("L", (8, 8)).save(folder / "many.gif", save_all=True, append_images=[Image.new("L", (8, 8), k) for k in range(1, 99)])


def _png(width: int, height: int) -> bytes:
    """A header that promises far more than there is."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1 << 20))) + part(b"IEND", b"")
