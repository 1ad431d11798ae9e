"""What a parameter's value is in Python: literals of the file, values that the program computes, constants as tensors."""

from typing import Any

import numpy as np
import torch

from toolkit.errors import ArtifactError
from toolkit.mil.dtypes import INTEGERS
from toolkit.mil.limits import MAX_LITERAL
from toolkit.mil.ops.types import Bools, Ints, Labels, Rows, Tensor
from toolkit.mil.plan import storage
from toolkit.mil.program import Constant


def literal(constant: Constant, kind: Any) -> Any:
    """A constant as the Python value a parameter of type `kind` takes. Raises ArtifactError when it is not one."""
    value, dtype = constant.value, constant.type.dtype
    if (kind is str and dtype == "string") or (kind == Labels and dtype == "list"):
        return value
    if isinstance(value, np.ndarray) and value.size <= MAX_LITERAL:
        family = "bool" if dtype == "bool" else "int" if dtype in INTEGERS else "float"
        rank = value.ndim
        if rank == 0 and (kind.__name__ == family or (kind is float and family == "int")):
            return kind(value)
        if rank == 2 and (kind, family) == (Rows, "int"):
            return tuple(tuple(row) for row in value.tolist())
        if rank == 1 and (kind, family) in ((Ints, "int"), (Bools, "bool")):
            return tuple(value.tolist())
    raise ArtifactError(f"a constant {constant.type} cannot be its {getattr(kind, '__name__', kind)}")


def computed_value(value: Tensor, name: str, kind: Any) -> Any:
    """What `literal` does, for a parameter that the program computes."""
    family = bool if value.dtype == torch.bool else float if value.is_floating_point() else int
    wanted, rank = {Ints: (int, 1), Bools: (bool, 1)}.get(kind, (kind, 0))
    if value.ndim == rank and value.numel() <= MAX_LITERAL and (wanted is family or (wanted is float and family is int)):
        return tuple(value.tolist()) if rank else kind(value.item())
    raise ArtifactError(f"input {name!r} is computed as {value.dtype}{list(value.shape)}, which cannot be its {wanted.__name__}")


def tensor(constant: Constant, mode: str) -> Any:
    """A constant as a tensor in the mode's storage type: always a copy, so that the weight file can go."""
    if not isinstance(constant.value, np.ndarray):
        return constant.value
    array = constant.value.astype(constant.value.dtype.newbyteorder("="))
    wider = {"uint16": np.int32, "uint32": np.int64}.get(constant.type.dtype)
    return torch.from_numpy(array if wider is None else array.astype(wider)).to(storage(constant.type.dtype, mode))
