"""Whether an op is, as the file has it, one that its opset defines: its age, the types it reads and gives, its nested blocks.

As strict as the type inference of coremltools (`converters/mil/mil/ops/defs`), which wrote every sound file, and no
stricter: where mixed precision may leave fp16 beside fp32, only the kind of number must agree.
"""

import inspect
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

from toolkit.errors import ArtifactError
from toolkit.mil.dtypes import DTYPES, FLOATS, INTEGERS, NUMBERS
from toolkit.mil.ops.op import Op
from toolkit.mil.program import OPSETS, Operation, Type

Found = Mapping[str, Sequence[str]]  # parameter -> the types of its tensors; what it holds, where an op reads a state or a list
_ALIKE = (("x", "y"), ("a", "b"), ("values",), ("x", "update"), ("data", "updates"), ("input", "data"))
_ANY_OP = _ALIKE[2:]  # x and y, a and b share one type in elementwise ops; a product's may differ from iOS17
_GROUPS = {
    "any": frozenset({*DTYPES, "string", "list", "dictionary"}),
    "number": NUMBERS,
    "int": INTEGERS,
    "float": FLOATS,
    "label": frozenset({"string", "int64"}),
} | {name: frozenset({name}) for name in ("bool", "list", "dictionary")}


@cache
def parameters(function: Any) -> dict[str, Any]:
    """Parameter -> its type, `X | None` taken as X."""
    hints = {name: hint for name, hint in get_type_hints(function).items() if name != "return"}
    unions = {name: get_args(hint)[0] for name, hint in hints.items() if isinstance(hint, types.UnionType)}
    return hints | unions


@cache
def defaults(function: Any) -> dict[str, Any]:
    """Parameter -> default, for those that have one."""
    given = inspect.signature(function).parameters.items()
    return {name: each.default for name, each in given if each.default is not inspect.Parameter.empty}


def held(type_: Type) -> str:
    """The type of the numbers in a state or a list, '' where a list does not say."""
    return type_.element.dtype if type_.element is not None and type_.element.dtype in NUMBERS else ""


def check_age(operation: Operation, op: Op, opset: str) -> None:
    """Raises ArtifactError for an op that came after the program's opset, as coremltools refuses to write it."""
    if op.since > OPSETS[opset]:
        needed = next(name for name, ios in OPSETS.items() if ios == op.since)
        raise ArtifactError(f"opset {opset} has no {operation.type!r}; it came with {needed}, iOS{op.since}. Export the model again")


def check_types(operation: Operation, op: Op, found: Found, settings: Mapping[str, Any]) -> None:
    """Raises ArtifactError unless tensors that share a type do, and every output has one that the op's rule allows."""
    for group in _ALIKE if op.elementwise else _ANY_OP:
        dtypes = sorted({dtype for name in group for dtype in found.get(name, ())})
        if len(dtypes) > 1:
            raise ArtifactError(f"its tensors have types {', '.join(dtypes)}; they must share one")
    if operation.type == "cond" and list(found["pred"]) != ["bool"]:
        raise ArtifactError(f"its 'pred' is {found['pred'][0]}, not bool")
    rules = op.gives * len(operation.outputs) if len(op.gives) == 1 else op.gives
    if len(rules) < len(operation.outputs) or bool(op.gives) != bool(operation.outputs):
        raise ArtifactError(f"has {len(operation.outputs)} outputs, its function gives {len(op.gives)}")
    for rule, value in zip(rules, operation.outputs, strict=False):  # some ops give fewer outputs when asked to
        expected = _expected(rule, found, settings)
        if value.type.dtype not in expected:
            raise ArtifactError(f"declares output {value.type}, its function gives {' or '.join(sorted(expected))}")


def _expected(rule: str, found: Found, settings: Mapping[str, Any]) -> frozenset[str]:
    """The types a rule of op.py allows. A parameter that is not given says nothing but that it is a number."""
    if rule.startswith("="):
        return frozenset({settings[rule[1:]]})
    if rule in _GROUPS:
        return _GROUPS[rule]
    dtypes = [dtype for name in rule.split(" or ") for dtype in found.get(name, ("",))]
    return frozenset(dtypes) if all(dtypes) else NUMBERS


def check_blocks(operation: Operation, found: Found, blocks: Sequence[tuple[Sequence[Type], Sequence[Type]]]) -> None:
    """Raises ArtifactError unless `cond` and `while_loop` have two blocks that take and give the same kinds of values.

    blocks: the types of what each takes, and of what it gives.
    """
    if len(blocks) != 2:
        raise ArtifactError(f"has {len(blocks)} nested blocks, not two")
    declared = [value.type.dtype for value in operation.outputs]
    loop = operation.type == "while_loop"
    carried = {"loop_vars": found["loop_vars"]} if loop else {}
    for name, (takes, gives) in zip(("first", "second"), blocks, strict=True):
        carried[f"the input of its {name} block"] = [each.dtype for each in takes]
        carried[f"the output of its {name} block"] = [each.dtype for each in gives]
    if loop:
        condition = carried.pop("the output of its first block")
        if len(condition) != 1 or condition[0] not in NUMBERS:
            raise ArtifactError(f"its condition gives {', '.join(condition) or 'nothing'}, not one bool")
    for where, dtypes in carried.items():
        expected = declared if loop or "output" in where else []
        if [_kind(each) for each in dtypes] != [_kind(each) for each in expected]:
            raise ArtifactError(f"{where} is {', '.join(dtypes) or 'nothing'}, where {', '.join(expected) or 'nothing'} is wanted")


def _kind(dtype: str) -> str:
    return "float" if dtype in FLOATS else "int" if dtype in INTEGERS else dtype


def only_moves(op: Op, dtype: str, read: Sequence[str]) -> bool:
    """Whether the op's results of type `dtype` need no rounding: it only moves values, and none comes from a wider float."""
    return op.exact and all(each == dtype for each in read if each in FLOATS)
