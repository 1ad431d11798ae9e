"""Decide which words of an exported program (.pt2) torch may be given: names, ops, expressions, and specs of inputs.

torch resolves an op by `getattr` from the module `torch` on, hands an expression to `sympy.sympify`, which is Python's `eval`, writes
names into Python code that it then executes, and imports a module that a spec names. So each of these is an allow-list here.
"""

import ast
import functools
import json
import keyword
import re
from typing import Any

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,249}", re.ASCII)
PATH = re.compile(r"[A-Za-z0-9_-]{1,250}(\.[A-Za-z0-9_-]{1,250}){0,63}", re.ASCII)
SYMBOL = re.compile(r"[A-Za-z]{1,6}[0-9]{1,5}", re.ASCII)  # s77, u0, zuf3; torch counts up to the number of one without a hint
ATEN = re.compile(r"torch\.ops\.(aten|prims|quantized_decomposed)\.([a-zA-Z0-9_]+)\.([A-Za-z0-9_]+)", re.ASCII)

# What torch writes for arithmetic on sizes (_SYM_OPS of torch/_export/serde/serialize.py).
SYMBOLIC = {
    *(f"_operator.{name}" for name in (
        "add", "and_", "eq", "floordiv", "ge", "gt", "le", "lshift", "lt", "mod", "mul", "ne", "neg", "or_", "pos", "pow", "rshift", "sub",
        "truediv",
    )),
    *(f"torch.{name}" for name in ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sum", "_sym_sqrt")),
    "math.trunc", "math.ceil", "math.floor",
}  # fmt: skip
CONTROL = {
    f"torch.ops.higher_order.{name}" for name in ("cond", "while_loop", "map_impl", "wrap_with_set_grad_enabled", "wrap_with_autocast")
}
# Ops that reach beyond tensors of the program: they map or write files, print, or take memory that is not theirs.
NOT_ATEN = {"from_file", "save", "_print", "set_", "set", "resize_", "resize", "resize_as_", "record_stream", "data_ptr", "share_memory_"}
# Ops of aten's inside that exported programs have, beside those with the tag `core`.
INNER_ATEN = {
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_assert_scalar", "_assert_tensor_metadata", "_batch_norm_no_update",
    "_functional_assert_scalar", "_log_softmax", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training", "_native_multi_head_attention", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention_for_cpu", "_shape_as_tensor", "_softmax", "_to_copy", "_unsafe_view",
    "_transformer_encoder_layer_fwd", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_weight_norm", "_weight_norm_interface",
    "_convolution", "_unique2", "_local_scalar_dense", "_cdist_forward", "_pdist_forward", "_fft_c2r", "_fft_r2c", "_fft_c2c",
}  # fmt: skip

# Classes and functions that expressions on sizes are made of: of SymPy, and of torch.utils._sympy.functions.
ARITHMETIC = {
    "Add", "Mul", "Max", "Min", "Mod", "Abs", "floor", "ceiling", "Piecewise", "ExprCondPair", "And", "Or", "Not", "Equality", "Unequality",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan",
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "TruncToInt", "RoundToInt", "ToFloat", "Identity",
}  # fmt: skip
POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
NUMBERS = {"Integer", "Rational", "Float"}
CONSTANTS = {"true", "false", "True", "False"}
PLAIN = re.compile(r"[A-Za-z0-9_ (),.+*/%<>=&|~'!-]*", re.ASCII)
MAX_EXPRESSION, MAX_NODES, MAX_POWER = 4000, 300, 8
OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.BitAnd, ast.BitOr, ast.Invert,
)  # fmt: skip


def identifier(text: str) -> str:
    """A name that torch writes into the code of the module. Raises ValueError for all but an identifier."""
    if not IDENTIFIER.fullmatch(text) or keyword.iskeyword(text):
        raise ValueError(f"{text[:80]!r} is no name of a value; torch would write it into Python code, and run that")
    return text


def qualified(text: str) -> str:
    """Of a parameter, `layer.0.weight`. Raises ValueError."""
    if not PATH.fullmatch(text) or any(part.startswith("__") for part in text.split(".")):
        raise ValueError(f"{text[:80]!r} is no name of a parameter")
    return text


def symbol(text: str) -> str:
    """Raises ValueError."""
    if not SYMBOL.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name of a size")
    return text


def operator(text: str) -> str:
    """An op that computes with tensors or sizes and does nothing else. Raises ValueError."""
    if text in SYMBOLIC or text in CONTROL:
        return text
    found = ATEN.fullmatch(text)
    if not found or found[2] in NOT_ATEN or (found[1] == "aten" and not _computes(found[2])):
        raise ValueError(f"{text[:120]!r} is no op that only computes; torch would look it up and call whatever it finds")
    return text


@functools.cache
def _computes(name: str) -> bool:
    """Whether the dispatcher knows it (ops such as aten::save belong to TorchScript only), and it is no part of aten's inside."""
    import torch

    if name not in _dispatched():
        return False
    if not name.startswith("_") or name in INNER_ATEN:
        return True
    packet = getattr(torch.ops.aten, name)
    return any(torch.Tag.core in getattr(packet, overload).tags for overload in packet.overloads())


@functools.cache
def _dispatched() -> frozenset[str]:
    import torch

    names = torch._C._dispatch_get_all_op_names()
    return frozenset(name.removeprefix("aten::").split(".")[0] for name in names if name.startswith("aten::"))


def expression(text: str) -> str:
    """Arithmetic on sizes, as torch writes it: `Mul(Integer(8), Symbol('s53', integer=True))` or `8*s53`. Raises ValueError."""
    try:
        if len(text) > MAX_EXPRESSION:
            raise ValueError("it is too long")
        if not PLAIN.fullmatch(text):  # no comment, no line break: SymPy splits the text in its own way
            raise ValueError("it has other characters")
        tree = ast.parse(text, mode="eval").body
        if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
            raise ValueError("it is too long")
        _arithmetic(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text[:80]!r} is no plain arithmetic on sizes ({error}); SymPy would run it as Python code") from error
    return text


def _arithmetic(node: ast.expr) -> None:
    """Raises ValueError for what is none, or could take for ever."""
    if isinstance(node, ast.Constant):
        _number(node)
    elif isinstance(node, ast.Name):
        if node.id not in CONSTANTS:
            symbol(node.id)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, OPERATORS):
        _arithmetic(node.operand)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        _power([node.left, node.right])
    elif isinstance(node, ast.BinOp) and isinstance(node.op, OPERATORS):
        _arithmetic(node.left)
        _arithmetic(node.right)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], OPERATORS):
        _arithmetic(node.left)
        _arithmetic(node.comparators[0])
    elif isinstance(node, ast.Tuple):
        for each in node.elts:
            _arithmetic(each)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        _call(node.func.id, node)
    else:
        raise ValueError(f"{type(node).__name__} is not allowed")


def _call(name: str, node: ast.Call) -> None:
    if name == "Symbol":
        _text(node.args, SYMBOL)
        if not all(IDENTIFIER.fullmatch(each.arg or "") and _is_bool(each.value) for each in node.keywords):
            raise ValueError("a symbol has assumptions that are true or false")
    elif name == "Float":
        _text(node.args, re.compile(r"-?[0-9.]{1,40}(e[+-]?[0-9]{1,3})?"))
        if not all(each.arg == "precision" and _integer(each.value) in range(1, 129) for each in node.keywords):
            raise ValueError("a number has a precision of at most 128 bits")
    elif node.keywords or name not in ARITHMETIC | POWERS | NUMBERS:
        raise ValueError(f"{name[:40]} is not allowed")
    elif name in POWERS:
        _power(node.args)
    else:
        for each in node.args:
            _arithmetic(each)


def _power(parts: list[ast.expr]) -> None:
    """Of a symbol, and small: 9**9**9 has 370 million digits."""
    if len(parts) != 2 or _integer(parts[1]) not in range(-MAX_POWER, MAX_POWER + 1):
        raise ValueError(f"a power is a number of at most {MAX_POWER}")
    _arithmetic(parts[0])


def _text(arguments: list[ast.expr], pattern: re.Pattern[str]) -> None:
    value = arguments[0].value if len(arguments) == 1 and isinstance(arguments[0], ast.Constant) else None
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:40]!r} is no name or number")


def _is_bool(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


def _integer(node: ast.expr) -> int | None:
    """Of `3`, `-3` or `Integer(3)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and len(node.args) == 1:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _integer(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _number(node: ast.Constant) -> None:
    if not isinstance(node.value, bool | int | float) or abs(node.value) > 1 << 64:
        raise ValueError(f"{str(node.value)[:40]!r} is no number that a size can have")


CONTAINERS = {
    "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict",
    *(f"torch.fx.immutable_collections.immutable_{name}" for name in ("dict", "list")),
}  # fmt: skip
MAX_SPEC = 100_000


def container(text: str) -> str:
    """How inputs or outputs are packed: tuples, lists and dicts whose keys are names. Raises ValueError."""
    try:
        if len(text) > MAX_SPEC:
            raise ValueError("it is too long")
        protocol, tree = json.loads(text)
        if protocol != 1:
            raise ValueError(f"version {str(protocol)[:20]} is not known")
        _packed(tree)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{text[:80]!r} says how inputs or outputs are packed, and not with tuples, lists and dicts ({error})") from error
    return text


def _packed(tree: Any) -> None:
    """Raises ValueError, TypeError or KeyError."""
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if len(tree) != 3 or not isinstance(children, list):
        raise ValueError("it is no tree")
    if kind is None:
        if context is not None or children:
            raise ValueError("a leaf has children")
        return
    if kind not in CONTAINERS:
        raise ValueError(f"it names {str(kind)[:80]!r}, which torch would look up")
    keys = json.loads(context)
    if keys is not None and not (
        isinstance(keys, list) and all(type(key) is int or (type(key) is str and identifier(key)) for key in keys)
    ):
        raise ValueError(f"it names {context[:80]!r}, which torch would look up")
    for child in children:
        _packed(child)
