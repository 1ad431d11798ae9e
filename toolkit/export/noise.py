"""Known third-party noise about their own insides: nothing a user could act on. Anything else stays visible."""

import functools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module

KNOWN = (
    # torch.export pickles its own pytree specs in a way that torch deprecates
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # coreai-torch compares "2.13.0+cpu" with "2.13.0" and finds it newer
    (UserWarning, r"coreai-torch has only been validated with torch<=2\.13\.0; found torch 2\.13\.0\+"),
    # the TorchScript route of torch.onnx.export: taken on purpose, when the newer one fails
    (DeprecationWarning, r"You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, r"The feature will be removed\. Please remove usage of this function"),
    # coremltools asks its own table of torch ops in a way that it deprecates itself
    (DeprecationWarning, r"Function _TORCH_OPS_REGISTRY\.__contains__ is deprecated"),
    # coremltools leaves the folder of weights of a conversion to the garbage collector
    (ResourceWarning, r"Implicitly cleaning up <TemporaryDirectory"),
)


BARS = (  # coremltools draws a bar for each of its pipelines, on a terminal or not, and has no switch for them
    ("coremltools.converters.mil.frontend.torch.ops", "_tqdm"),
    ("coremltools.converters.mil.mil.passes.pass_pipeline", "tqdm"),
)


@contextmanager
def known_noise() -> Iterator[None]:
    """Drops the known warnings; what a library prints goes to standard error, standard output being for results."""
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        for category, message in KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


@contextmanager
def no_bars() -> Iterator[None]:
    """coremltools' own progress bars, off. Call after coremltools was imported."""
    modules = [(import_module(name), attribute) for name, attribute in BARS]
    before = [getattr(module, attribute) for module, attribute in modules]
    try:
        for (module, attribute), bar in zip(modules, before, strict=True):
            setattr(module, attribute, functools.partial(bar, disable=True))
        yield
    finally:
        for (module, attribute), bar in zip(modules, before, strict=True):
            setattr(module, attribute, bar)
