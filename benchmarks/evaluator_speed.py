"""How fast the reference evaluator is: ResNet18 (3x3 stem, 1x32x32) against PyTorch eager and onnx's ReferenceEvaluator.

    python benchmarks/evaluator_speed.py [--threads 2] [--rounds 7] [--write]

Contestants take turns within each round, so that a machine that slows down slows all of them; the ratio is taken round
by round. Load times are of fresh processes.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator as OnnxEvaluator

from toolkit.mil import ReferenceEvaluator
from toolkit.mil._coremltools import import_coremltools
from toolkit.networks.resnet import resnet18

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 64)
Contestant = Callable[[np.ndarray[Any, Any]], Any]


def programs(model: torch.nn.Module, folder: Path) -> dict[str, Path]:
    ct: Any = import_coremltools()
    example = torch.rand(1, 1, 32, 32)
    paths = {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's and coremltools' own
        traced = torch.jit.trace(model, example)
        for precision in ("FLOAT32", "FLOAT16"):
            package = ct.convert(
                traced,
                inputs=[ct.TensorType(name="image", shape=example.shape)],
                outputs=[ct.TensorType(name="logits")],
                compute_precision=getattr(ct.precision, precision),
                minimum_deployment_target=ct.target.iOS17,
                skip_model_load=True,
            )
            paths[precision] = folder / f"{precision}.mlpackage"
            package.save(str(paths[precision]))
        torch.onnx.export(model, (example,), str(folder / "model.onnx"), dynamo=True, verbose=False)
    return paths | {"onnx": folder / "model.onnx"}


def measure(contestants: dict[str, Contestant], inputs: np.ndarray[Any, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds for all inputs, one figure a round; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run(inputs)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def against(seconds: dict[str, list[float]], reference: str) -> dict[str, tuple[float, float, float]]:
    """Speed over the reference's, round by round: median, least, most."""
    ratios = {name: [base / own for base, own in zip(seconds[reference], each, strict=True)] for name, each in seconds.items()}
    return {name: (statistics.median(each), min(each), max(each)) for name, each in ratios.items()}


def load_seconds(path: Path, prelude: str) -> list[float]:
    """Seconds from a path to a ready evaluator, in fresh processes."""
    script = (
        f"{prelude}\nimport time, sys, torch\nfrom toolkit.mil.evaluator import ReferenceEvaluator\n"
        "start = time.perf_counter(); ReferenceEvaluator(sys.argv[1]); print(time.perf_counter() - start)"
    )
    runs = [subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True) for _ in range(5)]
    return [float(run.stdout) for run in runs]


def report(results: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [
        f"# Speed of the reference evaluator, {date.today()}",
        "",
        f"`python benchmarks/evaluator_speed.py --threads {options.threads} --rounds {options.rounds} --write`; ResNet18, 11,172,810 "
        f"parameters, random weights, 1x32x32; PyTorch {torch.__version__}, onnx {onnx.__version__}, Python {platform.python_version()}, "
        f"{options.threads} threads of {platform.machine()} Linux.",
        "",
        "| | batch | images/s (median) | speed over PyTorch eager: median (least–most) |",
        "|---|---|---|---|",
    ]
    for batch in BATCHES:
        for name, rate in results[f"batch {batch}"]["images_per_s"].items():
            median, least, most = results[f"batch {batch}"]["over_eager"][name]
            lines.append(f"| {name} | {batch} | {rate:.1f} | {median:.2f} ({least:.2f}–{most:.2f}) |")
    over = results["over_onnx"]
    lines += ["", f"Over onnx's ReferenceEvaluator, batch 1: {over[0]:.0f} times as fast ({over[1]:.0f}–{over[2]:.0f}).", ""]
    for what, seconds in results["load_s"].items():
        lines.append(f"Load, {what}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}–{max(seconds):.2f}), five fresh processes.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = resnet18(10).eval()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = programs(model, Path(folder))
        fp32, as_typed = ReferenceEvaluator(paths["FLOAT32"], "fp32"), ReferenceEvaluator(paths["FLOAT16"], "as-typed")
        onnx_evaluator = OnnxEvaluator(str(paths["onnx"]))
        (input_name,) = [each.name for each in onnx.load(str(paths["onnx"])).graph.input]
        contestants: dict[str, Contestant] = {
            "PyTorch eager": lambda x: model(torch.from_numpy(x)),
            "fp32 program, fp32 mode": fp32.predict_array,
            "fp16 program, as-typed mode": as_typed.predict_array,
        }
        for batch in BATCHES:
            inputs = np.random.default_rng(0).normal(size=(batch, 1, 32, 32)).astype(np.float32)
            expected = model(torch.from_numpy(inputs)).numpy()
            np.testing.assert_allclose(fp32.predict_array(inputs)["logits"], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
            seconds = measure(contestants, inputs, options.rounds if batch > 1 else 10 * options.rounds)
            rates = {name: batch / statistics.median(each) for name, each in seconds.items()}
            results[f"batch {batch}"] = {"images_per_s": rates, "over_eager": against(seconds, "PyTorch eager"), "seconds": seconds}
        one = inputs[:1]
        np.testing.assert_allclose(onnx_evaluator.run(None, {input_name: one})[0], expected[:1], rtol=0, atol=1e-4 * np.abs(expected).max())
        both = {"onnx": lambda x: onnx_evaluator.run(None, {input_name: x}), "fp32": fp32.predict_array}
        results["over_onnx"] = against(measure(both, one, 5), "onnx")["fp32"]
        results["load_s"] = {
            "coremltools imported before": load_seconds(
                paths["FLOAT16"], "from toolkit.mil._coremltools import import_coremltools; import_coremltools()"
            ),
            "without coremltools": load_seconds(paths["FLOAT16"], ""),
        }
    text = report(results, options)
    print(text)
    if options.write:
        RESULTS.joinpath("evaluator-speed.md").write_text(text)
        RESULTS.joinpath("evaluator-speed.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
