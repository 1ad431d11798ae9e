"""State what an exported program (.pt2) may say: torch's own schema (torch/_export/serde/schema.py), without all that can run code.

What is not in these models is refused (a kind of argument) or left out of the copy that torch is given (`guards_code`, which torch
executes; notes about the nodes; the signatures of inner modules, which are for unflattening). Nothing else is added or changed.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from toolkit.runtimes import pt2_words as words

Name = Annotated[str, AfterValidator(words.identifier)]
Path = Annotated[str, AfterValidator(words.qualified)]
Text = Annotated[str, Field(max_length=1000)]
Number = Annotated[int, Field(ge=-(1 << 63), le=1 << 64)]
Real = float | Literal["Infinity", "-Infinity", "NaN"]
Code = Annotated[int, Field(ge=0, le=99)]  # of an enumeration


class Part(BaseModel):
    """Keys that are not fields are left out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class OneOf(BaseModel):
    """A union: an object of one key, which is one of the fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("it is no object of one key")
        (key,) = value
        if key not in cls.model_fields:
            raise ValueError(REFUSED.get(key, f"{str(key)[:80]!r} is not among what only computes"))
        return value

    @model_validator(mode="after")
    def _given(self) -> Self:
        if any(getattr(self, key) is None for key in self.model_fields_set):
            raise ValueError("its value is null")
        return self


REFUSED = {
    "custom_obj": "it holds a custom object, which is a pickle and runs code when it is read",
    "as_custom_obj": "it holds a custom object, which is a pickle and runs code when it is read",
    "token": "it has ops with effects outside the program",
}


class Device(Part):
    type: Literal["cpu", "cuda", "mps", "xpu", "meta"]
    index: Code | None = None


class Hint(OneOf):
    as_int: Number | None = None
    as_bool: bool | None = None
    as_float: Real | None = None


class Expression(Part):
    expr_str: Annotated[str, AfterValidator(words.expression)]
    hint: Hint | None = None


class SymInt(OneOf):
    as_expr: Expression | None = None
    as_int: Number | None = None


class SymFloat(OneOf):
    as_expr: Expression | None = None
    as_float: Real | None = None


class SymBool(OneOf):
    as_expr: Expression | None = None
    as_bool: bool | None = None


class TensorMeta(Part):
    dtype: Code
    sizes: list[SymInt]
    requires_grad: bool
    device: Device
    strides: list[SymInt]
    storage_offset: SymInt
    layout: Code


class Named(Part):
    name: Name


class SymIntArgument(OneOf):
    as_name: Name | None = None
    as_int: Number | None = None


class SymFloatArgument(OneOf):
    as_name: Name | None = None
    as_float: Real | None = None


class SymBoolArgument(OneOf):
    as_name: Name | None = None
    as_bool: bool | None = None


class OptionalTensor(OneOf):
    as_tensor: Named | None = None
    as_none: bool | None = None


class Complex(Part):
    real: Real
    imag: Real


class GraphArgument(Part):
    name: Name
    graph: "Graph"


class Argument(OneOf):
    as_none: bool | None = None
    as_tensor: Named | None = None
    as_tensors: list[Named] | None = None
    as_int: Number | None = None
    as_ints: list[Number] | None = None
    as_float: Real | None = None
    as_floats: list[Real] | None = None
    as_string: Text | None = None
    as_strings: list[Text] | None = None
    as_sym_int: SymIntArgument | None = None
    as_sym_ints: list[SymIntArgument] | None = None
    as_scalar_type: Code | None = None
    as_memory_format: Code | None = None
    as_layout: Code | None = None
    as_device: Device | None = None
    as_bool: bool | None = None
    as_bools: list[bool] | None = None
    as_sym_bool: SymBoolArgument | None = None
    as_sym_bools: list[SymBoolArgument] | None = None
    as_graph: GraphArgument | None = None
    as_optional_tensors: list[OptionalTensor] | None = None
    as_optional_tensor: OptionalTensor | None = None
    as_operator: Annotated[str, AfterValidator(words.operator)] | None = None
    as_sym_float: SymFloatArgument | None = None
    as_sym_floats: list[SymFloatArgument] | None = None
    as_complex: Complex | None = None
    as_nested_tensors: list[list[Named]] | None = None
    as_int_lists: list[list[Number]] | None = None
    as_float_lists: list[list[Real]] | None = None


class Input(Part):
    name: Annotated[str, Field(pattern=r"^[A-Za-z_]?[A-Za-z0-9_]{0,249}$")]  # `from` and `self` are names of arguments
    arg: Argument
    kind: Code | None = None


class Node(Part):
    target: Annotated[str, AfterValidator(words.operator)]
    inputs: list[Input]
    outputs: list[Argument]
    metadata: Annotated[dict[str, str], BeforeValidator(lambda _: {})]
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None


class Graph(Part):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node] = Field(max_length=100_000)
    tensor_values: dict[Name, TensorMeta]
    sym_int_values: dict[Name, SymInt]
    sym_bool_values: dict[Name, SymBool]
    is_single_tensor_return: bool = False
    custom_obj_values: Annotated[dict[str, str], Field(max_length=0)] = {}
    sym_float_values: dict[Name, SymFloat] = {}


class Parameter(Part):
    arg: Named
    parameter_name: Path


class Buffer(Part):
    arg: Named
    buffer_name: Path
    persistent: bool


class TensorConstant(Part):
    arg: Named
    tensor_constant_name: Path


class Value(OneOf):
    as_none: bool | None = None
    as_int: Number | None = None
    as_float: Real | None = None
    as_string: Text | None = None
    as_bool: bool | None = None


class ConstantInput(Part):
    name: Name
    value: Value


class User(Part):
    arg: Argument


class InputSpec(OneOf):
    user_input: User | None = None
    parameter: Parameter | None = None
    buffer: Buffer | None = None
    tensor_constant: TensorConstant | None = None
    constant_input: ConstantInput | None = None


class BufferMutation(Part):
    arg: Named
    buffer_name: Path


class ParameterMutation(Part):
    arg: Named
    parameter_name: Path


class UserInputMutation(Part):
    arg: Named
    user_input_name: Name


class OutputSpec(OneOf):
    user_output: User | None = None
    buffer_mutation: BufferMutation | None = None
    parameter_mutation: ParameterMutation | None = None
    user_input_mutation: UserInputMutation | None = None


class Signature(Part):
    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class CallSignature(Part):
    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: Annotated[str, AfterValidator(words.container)]
    out_spec: Annotated[str, AfterValidator(words.container)]
    forward_arg_names: list[Name] | None = None


class Call(Part):
    fqn: Literal[""]
    signature: CallSignature


def _outermost(calls: Any) -> Any:
    """How the whole program is called; the others are of inner modules."""
    return [call for call in calls if isinstance(call, dict) and call.get("fqn") == ""] if isinstance(calls, list) else calls


class GraphModule(Part):
    graph: Graph
    signature: Signature
    module_call_graph: Annotated[list[Call], BeforeValidator(_outermost), Field(min_length=1, max_length=1)]


class Range(Part):
    min_val: Number | None
    max_val: Number | None


class Version(Part):
    major: Code
    minor: Code


class Program(Part):
    """models/model.json."""

    graph_module: GraphModule
    opset_version: dict[Name, Number]
    range_constraints: dict[Annotated[str, AfterValidator(words.symbol)], Range]
    schema_version: Version
    verifiers: list[Literal["", "ATEN", "TRAINING", "EDGE"]] = []
    torch_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+<=-]{1,60}$")] = "<=2.4"
