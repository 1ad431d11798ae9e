"""Surgery on Core ML ML Programs: the protobuf and weight.bin of an .mlpackage, edited in place."""

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.faults.coreml_literals import Weights, literal, read, set_shape_of, shape_of
from toolkit.faults.surgery import Array, Layer, NotApplicable, fits, fresh
from toolkit.mil.dtypes import BY_PROTO
from toolkit.mil.package import open_package, read_spec

KIND_OF = {
    "conv": "conv", "linear": "linear", "relu": "relu", "add": "add", "avg_pool": "pool", "reduce_mean": "pool", "softmax": "softmax",
    "upsample_bilinear": "resize", "resize_bilinear": "resize", "sub": "sub", "mul": "mul",
}  # fmt: skip
WORDS = {"pads": "pad"}  # the others are called alike
WEIGHT_OF = {"conv": "weight", "linear": "weight", "sub": "y", "mul": "y"}
MAXIMUM = {"avg_pool": "max_pool", "reduce_mean": "reduce_max"}
NEAREST = {"upsample_bilinear": "upsample_nearest_neighbor", "resize_bilinear": "resize_nearest_neighbor"}
DTYPE_OF = {"strides": "int32", "dilations": "int32", "pads": "int32", "axis": "int32", "align_corners": "bool"}


class CoremlLayer:
    def __init__(self, surgery: "CoremlSurgery", op: Any, kind: str) -> None:
        self.surgery, self.op, self.kind = surgery, op, kind

    @property
    def name(self) -> str:
        return str(self.op.outputs[0].name)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.op.inputs[key].arguments[0].name for key in ("x", "y") if key in self.op.inputs and self._value(key) is None)

    def weight(self) -> Array:
        return self._array(WEIGHT_OF[self.kind])

    def set_weight(self, array: Array) -> None:
        self._set(WEIGHT_OF[self.kind], array)

    def bias(self) -> Array:
        return self._array("bias")

    def set_bias(self, array: Array) -> None:
        self._set("bias", array)

    def attribute(self, name: str) -> Any:
        found = read(self._stored(WORDS.get(name, name)), self.surgery.weights)
        if not isinstance(found, np.ndarray):
            return found
        return tuple(found.tolist()) if found.ndim else found.item()

    def set_attribute(self, name: str, value: Any) -> None:
        key = WORDS.get(name, name)
        self._stored(key)
        self._bind(key, value, DTYPE_OF[name])
        if name == "pads":
            self._bind("pad_type", "custom", "string")

    def replace(self, kind: str, **constants: float) -> None:
        op, dtype = self.op, self.surgery.dtype(self.name)
        if (self.kind, kind) == ("pool", "max_pool"):
            op.type = MAXIMUM[op.type]
            self._drop("exclude_padding_from_average")
        elif (self.kind, kind) == ("resize", "nearest"):
            op.type = NEAREST[op.type]
            self._drop("align_corners", "sampling_mode")
        elif (self.kind, kind) in (("relu", "identity"), ("add", "identity")):
            op.type = "identity"
            self._drop("y")
        elif (self.kind, kind) == ("relu", "leaky_relu"):
            op.type = "leaky_relu"
            self._bind("alpha", constants["slope"], dtype)
        elif (self.kind, kind) == ("relu", "clip"):
            op.type = "clip"
            self._bind("alpha", constants["low"], dtype)
            self._bind("beta", constants["high"], dtype)
        else:
            raise NotApplicable(f"no {kind} in place of a {self.kind}")

    def rewire(self, position: int, value: str) -> None:
        old = self.inputs[position]
        key = next(key for key in ("x", "y") if self.op.inputs[key].arguments[0].name == old)
        self.op.inputs[key].arguments[0].name = value

    def _drop(self, *keys: str) -> None:
        for key in keys:
            if key in self.op.inputs:
                del self.op.inputs[key]

    def _value(self, key: str) -> Any:
        """The Value bound to an input; None for a computed one, or no such input."""
        if key not in self.op.inputs:
            return None
        binding = self.op.inputs[key].arguments[0]
        if binding.WhichOneof("binding") == "value":
            return binding.value
        constant = self.surgery.constants.get(binding.name)
        return constant.attributes["val"] if constant is not None else None

    def _stored(self, key: str) -> Any:
        value = self._value(key)
        if value is None:
            raise NotApplicable(f"{self.op.type} {self.name} has no stored {key}")
        return value

    def _array(self, key: str) -> Array:
        return np.array(read(self._stored(key), self.surgery.weights))

    def _set(self, key: str, array: Array) -> None:
        """In place where it lies in weight.bin, unless others read it too; else as a literal."""
        value = self._stored(key)
        fitting = fits(self._array(key), array)
        binding = self.op.inputs[key].arguments[0]
        shared = binding.WhichOneof("binding") == "name" and self.surgery.readers(binding.name) > 1
        if value.WhichOneof("value") == "blobFileValue" and not shared:
            read(value, self.surgery.weights)[...] = fitting
        else:
            self._bind(key, fitting, BY_PROTO[value.type.tensorType.dataType])

    def _bind(self, key: str, content: Any, dtype: str) -> None:
        argument = self.op.inputs[key]
        del argument.arguments[:]
        argument.arguments.add().value.CopyFrom(literal(content, dtype))


class CoremlSurgery:
    def __init__(self, path: Path) -> None:
        self.package = open_package(path)
        self.spec = read_spec(self.package)
        self.function = self.spec.mlProgram.functions[self.spec.description.defaultFunctionName or "main"]
        self.block = self.function.block_specializations[self.function.opset]
        self.weights = Weights(self.package)
        self.constants = {op.outputs[0].name: op for op in self.block.operations if op.type == "const"}

    def readers(self, name: str) -> int:
        bindings = (each for op in self.block.operations for argument in op.inputs.values() for each in argument.arguments)
        return sum(each.name == name for each in bindings)

    def layers(self, kind: str) -> list[Layer]:
        found = [CoremlLayer(self, op, kind) for op in self.block.operations if KIND_OF.get(op.type) == kind]
        wanted = {"sub": 1, "mul": 1, "add": 2}.get(kind)
        return [layer for layer in found if wanted is None or len(layer.inputs) == wanted]

    def _named(self, value: str) -> Any:
        """The declaration of a value: an output of an op, or an input of the program."""
        declared = [*self.function.inputs, *(each for op in self.block.operations for each in op.outputs)]
        return next(each for each in declared if each.name == value)

    def dtype(self, value: str) -> str:
        return BY_PROTO[self._named(value).type.tensorType.dataType]

    def shape(self, value: str) -> tuple[int | None, ...]:
        return shape_of(self._named(value).type)

    def set_shape(self, value: str, shape: tuple[int | None, ...]) -> None:
        set_shape_of(self._named(value).type, shape)

    def insert_after(self, name: str, scale: float, offset: float) -> None:
        self.insert("affine", name, scale=scale, offset=offset)

    def insert(self, kind: str, value: str, **constants: float) -> None:
        operations = self.block.operations
        given = any(each.name == value for each in self.function.inputs)
        type_, dtype = self._named(value).type, self.dtype(value)
        taken = {each.name for op in operations for each in op.outputs}
        before = value if given else fresh(f"{value}_before_{kind}", taken)
        after = fresh(f"{value}_{kind}", taken) if given else value
        position = 0
        if given:
            self._rename({before: after}, outputs=False)
        else:
            position = next(index for index, op in enumerate(operations) if any(each.name == value for each in op.outputs))
            operations[position].outputs[0].name = before
            position += 1
        for offset, (op, source, result, inputs) in enumerate(
            _new(kind, (before, fresh(f"{after}_scaled", taken), after), dtype, constants)
        ):
            made = type(operations[0])(type=op)
            made.inputs["x"].arguments.add().name = source
            for key, constant in inputs.items():
                made.inputs[key].arguments.add().value.CopyFrom(constant)
            made.outputs.add(name=result).type.CopyFrom(type_)
            operations.insert(position + offset, made)

    def rename_output(self, old: str, new: str) -> None:
        self._rename({old: new})
        self.block.outputs[:] = [new if name == old else name for name in self.block.outputs]
        for each in self.spec.description.output:
            each.name = new if each.name == old else each.name

    def swap_outputs(self, one: str, other: str) -> None:
        self._rename({one: other, other: one}, but=("classify",))  # which goes on reading the name it knows

    def _rename(self, names: dict[str, str], outputs: bool = True, but: tuple[str, ...] = ()) -> None:
        for op in self.block.operations:
            if op.type in but:
                continue
            for argument in op.inputs.values():
                for each in argument.arguments:
                    if each.WhichOneof("binding") == "name" and each.name in names:
                        each.name = names[each.name]
            for value in op.outputs if outputs else ():
                value.name = names.get(value.name, value.name)

    def labels(self) -> list[str]:
        return [str(each.immediateValue.tensor.strings.values[0]) for each in self._classes().immediateValue.list.values]

    def set_labels(self, labels: list[str]) -> None:
        classes = self._classes()
        values = classes.immediateValue.list.values
        template = type(values[0])()
        template.CopyFrom(values[0])
        del values[:]
        for label in labels:
            made = values.add()
            made.CopyFrom(template)
            made.immediateValue.tensor.strings.values[:] = [label]
        if classes.type.listType.length.WhichOneof("dimension") == "constant":
            classes.type.listType.length.constant.size = len(labels)

    def _classes(self) -> Any:
        for op in self.block.operations:
            if op.type == "classify":
                return CoremlLayer(self, op, "classify")._stored("classes")
        raise NotApplicable("the program has no class labels")

    def set_metadata(self, key: str, value: str) -> None:
        metadata = self.spec.description.metadata
        if key == "description":
            metadata.shortDescription = value
        else:
            metadata.userDefined[key] = value

    def set_input_shape(self, shape: tuple[int | None, ...]) -> None:
        """The resize still makes what it made: its scale factors fit the new shape."""
        feature, old = self.spec.description.input[0], self.shape(self.function.inputs[0].name)
        kind = feature.type.WhichOneof("Type")
        if kind == "imageType":
            feature.type.imageType.height, feature.type.imageType.width = shape[2] or 0, shape[3] or 0
        else:
            feature.type.multiArrayType.shape[:] = [size or 1 for size in shape]
        for value in [*self.function.inputs, *(each for op in self.block.operations for each in op.outputs)]:
            if value.type.WhichOneof("type") == "tensorType" and shape_of(value.type) == old:
                set_shape_of(value.type, shape)
        for layer in self.layers("resize"):
            for word, axis in (("scale_factor_height", 2), ("scale_factor_width", 3)):
                made = self.shape(layer.name)[axis] or 0
                assert isinstance(layer, CoremlLayer)
                layer._bind(word, (made + 1e-4) / (shape[axis] or 1), "fp32")  # as coremltools: a little more, for the floor

    def save(self) -> None:
        self.package.model.write_bytes(self.spec.SerializeToString())
        self.weights.save()


def _new(kind: str, names: tuple[str, str, str], dtype: str, constants: dict[str, float]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """(op, its x, its result, its other inputs) of each op that is inserted. `names`: the values before, between and after them."""
    before, middle, after = names
    if kind == "affine":
        scale, offset = (literal(constants[word], dtype) for word in ("scale", "offset"))
        return [("mul", before, middle, {"y": scale}), ("add", middle, after, {"y": offset})]
    if kind == "transpose":
        return [("transpose", before, after, {"perm": literal([0, 1, 3, 2], "int32")})]
    if kind == "mirror":
        return [("reverse", before, after, {"axes": literal([3], "int32")})]
    if kind == "softmax":
        return [("softmax", before, after, {"axis": literal(1, "int32")})]
    raise NotApplicable(f"no {kind} can be inserted in a Core ML program")
