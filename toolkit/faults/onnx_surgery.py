"""Surgery on ONNX files, with the onnx package."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.faults.surgery import Array, Layer, NotApplicable, fits, fresh

KIND_OF = {
    "Conv": "conv", "Gemm": "linear", "MatMul": "linear", "Relu": "relu", "Add": "add", "AveragePool": "pool",
    "GlobalAveragePool": "pool", "ReduceMean": "pool", "Softmax": "softmax", "Resize": "resize", "Sub": "sub", "Mul": "mul",
}  # fmt: skip
CONSTANT_OPERAND = {"linear": True, "sub": True, "mul": True, "add": False}  # does its second operand lie in the file?
MAXIMUM = {"AveragePool": "MaxPool", "GlobalAveragePool": "GlobalMaxPool", "ReduceMean": "ReduceMax"}
BACKWARDS = {"starts": [-1], "ends": [-(2**62)], "axes": [3], "steps": [-1]}


class OnnxLayer:
    def __init__(self, surgery: "OnnxSurgery", node: Any, kind: str) -> None:
        self.surgery, self.node, self.kind = surgery, node, kind

    @property
    def name(self) -> str:
        return str(self.node.output[0])

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.node.input if name and self.surgery.stored(name) is None)

    def weight(self) -> Array:
        array = self._array(1)
        return array if self.kind != "linear" or self._rows_are_outputs() else array.T

    def set_weight(self, array: Array) -> None:
        self._set(1, array if self.kind != "linear" or self._rows_are_outputs() else array.T)

    def bias(self) -> Array:
        return self._array(2)

    def set_bias(self, array: Array) -> None:
        self._set(2, array)

    def attribute(self, name: str) -> Any:
        stored = {each.name: helper.get_attribute_value(each) for each in self.node.attribute}
        if name == "align_corners" and self.kind == "resize":
            return stored.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
        if name not in stored:
            raise NotApplicable(f"{self.node.op_type} {self.name} does not say its {name}")
        if name == "pads":
            top, left, bottom, right = stored[name]
            return (top, bottom, left, right)
        return tuple(stored[name]) if isinstance(stored[name], list) else stored[name]

    def set_attribute(self, name: str, value: Any) -> None:
        if name == "align_corners":
            name, value = "coordinate_transformation_mode", "align_corners" if value else "half_pixel"
        elif name == "pads":
            top, bottom, left, right = value
            value = (top, left, bottom, right)
        self._drop(name)
        self.node.attribute.append(helper.make_attribute(name, list(value) if isinstance(value, tuple) else value))
        self.surgery.reshaped = True

    def replace(self, kind: str, **constants: float) -> None:
        node = self.node
        if (self.kind, kind) == ("pool", "max_pool"):
            node.op_type = MAXIMUM[node.op_type]
            self._drop("count_include_pad")
        elif (self.kind, kind) == ("resize", "nearest"):
            for name, value in (("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")):
                self.set_attribute(name, value)  # as PyTorch's nearest is exported
        elif (self.kind, kind) in (("relu", "identity"), ("add", "identity")):
            node.op_type = "Identity"
            del node.input[1:]
        elif (self.kind, kind) == ("relu", "leaky_relu"):
            node.op_type = "LeakyRelu"
            self.set_attribute("alpha", float(constants["slope"]))
        elif (self.kind, kind) == ("relu", "clip"):
            node.op_type = "Clip"
            node.input.extend(self.surgery.store(f"{self.name}_{bound}", np.float32(constants[bound])) for bound in ("low", "high"))
        else:
            raise NotApplicable(f"no {kind} in place of a {self.kind}")

    def rewire(self, position: int, value: str) -> None:
        old = self.inputs[position]
        self.node.input[list(self.node.input).index(old)] = value

    def _rows_are_outputs(self) -> bool:
        return any(each.name == "transB" and each.i for each in self.node.attribute)

    def _drop(self, name: str) -> None:
        kept = [each for each in self.node.attribute if each.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(kept)

    def _tensor(self, position: int) -> Any:
        tensor = self.surgery.stored(self.node.input[position]) if len(self.node.input) > position else None
        if tensor is None:
            raise NotApplicable(f"{self.node.op_type} {self.name} has no stored operand {position}")
        return tensor

    def _array(self, position: int) -> Array:
        return np.array(numpy_helper.to_array(self._tensor(position)))

    def _set(self, position: int, array: Array) -> None:
        """In place; a tensor that other nodes read as well stays theirs."""
        fitting = np.ascontiguousarray(fits(self._array(position), array)).reshape(np.shape(array))
        name = self.node.input[position]
        if sum(list(node.input).count(name) for node in self.surgery.graph.node) > 1:
            self.node.input[position] = self.surgery.store(f"{self.name}_operand_{position}", fitting)
        else:
            self._tensor(position).CopyFrom(numpy_helper.from_array(fitting, name))


class OnnxSurgery:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = onnx.load(path)
        self.graph = self.model.graph
        self.reshaped = False  # then what the file says of inner shapes may no longer hold

    def stored(self, name: str) -> Any:
        """The tensor of that name in the file, an initializer's or a Constant's; None for a computed value."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                return tensor
        for node in self.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                return next((each.t for each in node.attribute if each.name == "value"), None)
        return None

    def store(self, name: str, array: Any) -> str:
        name = fresh(name, self._names())
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _names(self) -> set[str]:
        computed = {name for node in self.graph.node for name in node.output}
        return computed | {each.name for each in [*self.graph.initializer, *self.graph.input]}

    def layers(self, kind: str) -> list[Layer]:
        return [OnnxLayer(self, node, kind) for node in self.graph.node if self._is(node, kind)]

    def _is(self, node: Any, kind: str) -> bool:
        if KIND_OF.get(node.op_type) != kind:
            return False
        if kind not in CONSTANT_OPERAND:
            return True
        tensor = self.stored(node.input[1])
        there = tensor is not None and (kind == "linear" or int(np.prod(tensor.dims)) == 1)
        return there == CONSTANT_OPERAND[kind]

    def shape(self, value: str) -> tuple[int | None, ...]:
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        for each in [*inferred.value_info, *inferred.input, *inferred.output]:
            if each.name == value and each.type.tensor_type.HasField("shape"):
                dims = each.type.tensor_type.shape.dim
                return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in dims)
        raise NotApplicable(f"the file does not say the shape of {value}")

    def set_shape(self, value: str, shape: tuple[int | None, ...]) -> None:
        self.reshaped = True  # left for runtimes to infer

    def insert_after(self, name: str, scale: float, offset: float) -> None:
        self.insert("affine", name, scale=scale, offset=offset)

    def insert(self, kind: str, value: str, **constants: float) -> None:
        nodes = self.graph.node
        given = any(each.name == value for each in self.graph.input)
        position = 0 if given else 1 + next(index for index, node in enumerate(nodes) if value in node.output)
        before, after = (value, value)
        if given:
            after = fresh(f"{value}_{kind}", self._names())
        else:
            before = fresh(f"{value}_before_{kind}", self._names())
        for node in nodes[position:]:
            if given or kind == "half":  # of another type: only what leaves the model
                node.input[:] = [(after if given else before) if name == value else name for name in node.input]
        if not given:
            made = nodes[position - 1].output
            made[:] = [before if name == value else name for name in made]
        for offset, node in enumerate(self._new(kind, before, after, constants)):
            nodes.insert(position + offset, node)
        self.reshaped = True

    def _new(self, kind: str, before: str, after: str, constants: dict[str, float]) -> list[Any]:
        if kind == "affine":
            scale, offset = (self.store(f"{after}_{word}", np.float32(constants[word])) for word in ("scale", "offset"))
            middle = fresh(f"{after}_scaled", self._names())
            return [helper.make_node("Mul", [before, scale], [middle]), helper.make_node("Add", [middle, offset], [after])]
        if kind == "transpose":
            return [helper.make_node("Transpose", [before], [after], perm=[0, 1, 3, 2])]
        if kind == "mirror":
            bounds = [self.store(f"{after}_{word}", np.array(numbers, np.int64)) for word, numbers in BACKWARDS.items()]
            return [helper.make_node("Slice", [before, *bounds], [after])]
        if kind == "softmax":
            return [helper.make_node("Softmax", [before], [after], axis=1)]
        if kind == "half":
            for output in self.graph.output:
                if output.name == after:
                    output.type.tensor_type.elem_type = TensorProto.FLOAT16
            return [helper.make_node("Cast", [before], [after], to=TensorProto.FLOAT16)]
        raise NotApplicable(f"no {kind} can be inserted")

    def rename_output(self, old: str, new: str) -> None:
        self._rename({old: new})
        for output in self.graph.output:
            output.name = new if output.name == old else output.name

    def swap_outputs(self, one: str, other: str) -> None:
        self._rename({one: other, other: one})

    def _rename(self, names: dict[str, str]) -> None:
        for node in self.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]

    def labels(self) -> list[str]:
        (text,) = [each.value for each in self.model.metadata_props if each.key == "class_labels"] or ["[]"]
        return [str(label) for label in json.loads(text)]

    def set_labels(self, labels: list[str]) -> None:
        self.set_metadata("class_labels", json.dumps(labels))

    def set_metadata(self, key: str, value: str) -> None:
        if key == "description":
            self.model.doc_string = value
        else:
            helper.set_model_props(self.model, {each.key: each.value for each in self.model.metadata_props} | {key: value})

    def set_input_shape(self, shape: tuple[int | None, ...]) -> None:
        for value in [self.graph.input[0], *(self.graph.output if shape[0] is not None else [])]:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, shape if value is self.graph.input[0] else shape[:1], strict=False):
                if size is not None:
                    dim.dim_value = size
        self.reshaped = True

    def save(self) -> None:
        if self.reshaped:
            del self.graph.value_info[:]
        onnx.save(self.model, self.path)
