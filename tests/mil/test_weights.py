"""weight.bin as Apple's own writer makes it: every type, sub-byte ones included, comes back element for element."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import ArtifactError
from toolkit.mil._coremltools import import_coremltools
from toolkit.mil.dtypes import DTYPES
from toolkit.mil.weights import WeightFile

LIMITS = {"int4": (-8, 8), "uint1": (0, 2), "uint2": (0, 4), "uint3": (0, 8), "uint4": (0, 16), "uint6": (0, 64)}
WRITERS = {"fp16": "fp16", "fp32": "float"} | {name: name for name, each in DTYPES.items() if each.blob and "int" in name}


@pytest.mark.parametrize("count", [1, 7, 64, 1001])
@pytest.mark.parametrize("name", WRITERS)
def test_reads_what_apple_wrote(name: str, count: int, tmp_path: Path) -> None:
    import_coremltools()
    from coremltools.libmilstoragepython import _BlobStorageWriter

    rng = np.random.default_rng(count)
    dtype: Any = np.dtype(DTYPES[name].numpy)
    low, high = LIMITS.get(name, (0, 2) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max))
    values = rng.normal(size=count).astype(dtype) if dtype.kind == "f" else rng.integers(low, high, count).astype(dtype)
    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    offset = getattr(writer, f"write_{WRITERS[name]}_data")(values.view(np.uint16) if name == "fp16" else values)
    del writer  # it writes its header when it goes
    np.testing.assert_array_equal(WeightFile(path).read(offset, name, count), values)
    with pytest.raises(ArtifactError, match="the program's shape needs"):
        WeightFile(path).read(offset, name, count + 8)
    other = "fp32" if name != "fp32" else "fp16"
    with pytest.raises(ArtifactError, match=f"holds type {name}, the program says {other}"):
        WeightFile(path).read(offset, other, count)
