"""Eleven torchvision classifiers, converted by coremltools and run by the reference evaluator, against PyTorch.

    python benchmarks/zoo.py [--size 64] [--images 8] [--only resnet18 …] [--write]

Random weights of some networks give logits of 1e-10, where agreement means nothing: every convolution and linear layer
is scaled so that its outputs have a standard deviation of 1. `--write` puts the table into benchmarks/results.
"""

import argparse
import json
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from toolkit._torchvision import import_torchvision
from toolkit.mil import ReferenceEvaluator
from toolkit.mil._coremltools import import_coremltools

NETWORKS = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "shufflenet_v2_x1_0",
    "squeezenet1_1", "densenet121", "regnet_y_400mf", "vit_b_16", "swin_t",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


torch.backends.mha.set_fastpath_enabled(False)  # coremltools cannot convert the fused operator


def network(name: str, size: int, seed: int = 0) -> nn.Module:
    """The torchvision network with random weights, layer outputs scaled to a standard deviation of 1."""
    torch.manual_seed(seed)
    more = {"image_size": size} if name.startswith("vit") else {}
    model: nn.Module = import_torchvision().models.get_model(name, weights=None, **more)

    def scale(layer: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        if float(output.std()) < 1e-12:  # a head that is initialised to zero
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            output = type(layer).forward(layer, *_)
        factor = float(output.std())
        layer.weight.div_(factor)
        if layer.bias is not None:
            layer.bias.div_(factor)
        return output / factor

    hooks = [layer.register_forward_hook(scale) for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    model.train()  # so that batch norm learns its statistics on the way
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        model(torch.randn(8, 3, size, size))
    for hook in hooks:
        hook.remove()
    return model.eval()


def convert(model: nn.Module, size: int, precision: str, folder: Path) -> Path:
    ct: Any = import_coremltools()
    example = torch.rand(1, 3, size, size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's and coremltools' own
        traced = torch.jit.trace(model, example, check_trace=False)
        package = ct.convert(
            traced,
            inputs=[ct.TensorType(name="image", shape=example.shape)],
            outputs=[ct.TensorType(name="logits")],
            compute_precision=getattr(ct.precision, precision),
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
        )
    path = folder / f"{precision}.mlpackage"
    package.save(str(path))
    return path


def compare(name: str, size: int, images: int) -> dict[str, Any]:
    """One row: the largest logit, and the largest difference in each mode, as a share of it."""
    model = network(name, size)
    inputs = np.random.default_rng(1).normal(size=(images, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs)).numpy()
    largest = float(np.abs(expected).max())
    row: dict[str, Any] = {"network": name, "largest_logit": largest}
    with tempfile.TemporaryDirectory() as folder:
        for precision, mode in (("FLOAT32", "fp32"), ("FLOAT16", "as-typed")):
            path = convert(model, size, precision, Path(folder))
            start = time.perf_counter()
            evaluator = ReferenceEvaluator(path, mode)
            row[f"{mode}_load_s"] = time.perf_counter() - start
            found = evaluator.predict_array(inputs)["logits"]
            row[mode] = float(np.abs(found - expected).max()) / largest
            row[f"{mode}_changed"] = int((found.argmax(1) != expected.argmax(1)).sum())
            row["batched"] = evaluator.why_not_batched or "yes"
            row["ops"] = len(evaluator._plan.routine.steps)
    return row


def table(rows: list[dict[str, Any]], size: int, images: int) -> str:
    ct: Any = import_coremltools()
    lines = [
        f"# Eleven networks, {images} images of {size}x{size}, {date.today()}",
        "",
        f"`python benchmarks/zoo.py --size {size} --images {images} --write`; PyTorch {torch.__version__}, "
        f"coremltools {ct.__version__}, Linux x86-64.",
        "Differences of logits from PyTorch fp32, as a share of the largest logit. Bar for fp32: 1e-4.",
        "",
        "| network | ops | max \\|logit\\| | fp32 program, `fp32` mode | fp16 program, `as-typed` | of these, top-1 changed | stacked |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        stacked = row["batched"] if row["batched"] == "yes" else "one by one: " + row["batched"].split(" is ")[0]
        lines.append(
            f"| {row['network']} | {row['ops']} | {row['largest_logit']:.3g} | {row['fp32']:.1e} | {row['as-typed']:.1e} | "
            f"{row['as-typed_changed']} of {images} | {stacked} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=NETWORKS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.only:
        rows.append(compare(name, options.size, options.images))
        print(json.dumps(rows[-1]), flush=True)
    text = table(rows, options.size, options.images)
    print(text)
    if options.write:
        RESULTS.joinpath("zoo.md").write_text(text)
        RESULTS.joinpath("zoo.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
