"""State what the tables of an exported program (.pt2) may say of its numbers: plain ones, of a known size, and never a pickle."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from toolkit.runtimes.pt2_schema import Code, Device, Part, Path


class PlainInt(Part):
    as_int: Annotated[int, Field(ge=0, le=1 << 40)]


class PlainMeta(Part):
    """Of stored numbers, so that nothing is left open."""

    dtype: Code
    sizes: list[PlainInt] = Field(max_length=64)
    requires_grad: bool
    device: Device
    strides: list[PlainInt] = Field(max_length=64)
    storage_offset: PlainInt
    layout: Literal[7]

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if len(self.sizes) != len(self.strides):
            raise ValueError(f"it has {len(self.sizes)} sizes and {len(self.strides)} strides")
        return self

    def last_element(self) -> int:
        """The place in its storage after the last one; 0 without elements."""
        if not all(size.as_int for size in self.sizes):
            return 0
        steps = (stride.as_int * (size.as_int - 1) for size, stride in zip(self.sizes, self.strides, strict=True))
        return self.storage_offset.as_int + sum(steps) + 1


class Payload(Part):
    path_name: Annotated[str, Field(pattern=r"^(weight|tensor)_[0-9]{1,9}$")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: PlainMeta

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("use_pickle") is not False:
            raise ValueError("it is stored as a pickle, which runs code when it is read")
        if isinstance(value, dict) and str(value.get("path_name")).startswith(("custom_obj_", "opaque_obj_")):
            raise ValueError("it is a custom object, which is a pickle and runs code when it is read")
        return value


class Payloads(Part):
    """data/weights/model_weights_config.json and data/constants/model_constants_config.json."""

    config: dict[Path, Payload] = Field(max_length=1_000_000)

    def files(self) -> Iterator[tuple[str, int, int]]:
        """(name of the file, code of its type, elements that it must hold at least)."""
        for payload in self.config.values():
            yield payload.path_name, payload.tensor_meta.dtype, payload.tensor_meta.last_element()
