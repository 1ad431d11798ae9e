"""How much a package may ask for. Far above what real models need; a stranger's file must not take the machine down.

Memory follows from the machine's (toolkit/limits.py); the rest is fixed. One prediction may take so many operations: a floating point
operation counts as one, every number that is read or written and every kernel that is started as what they take of a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from toolkit import limits as machine
from toolkit.errors import ArtifactError

MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 27  # the program without its weights: the largest known are a few MB
MAX_FIELDS = 1 << 21  # of the program's protobuf; an op has about fifty
MAX_DEPTH = 100  # messages within messages: protobuf's own limit
MAX_TEXT_BYTES = 1 << 20  # of a name or a text in the program
MAX_OPERATIONS = 1 << 17  # ops of a program; the largest programs known have some ten thousand
MAX_RANK = 8  # a tensor has at most 5 axes, a look-up table of compressed weights two more than its tensor
MAX_LITERAL = 1 << 20  # numbers of a constant that becomes a Python tuple: axes, shapes, indices into a list
MAX_PIECES = 1 << 17  # outputs of one op
MAX_WINDOWS = 1 << 24  # positions of a pool's kernel on one axis
MAX_ITERATIONS = 1_000_000  # rounds of one loop, elements of one list
PER_ELEMENT, PER_SORTED, PER_KERNEL = 32, 1024, 1 << 23  # operations that take as long as to read a number, sort it, start a kernel
ITEM_ELEMENTS = 128  # a tensor in a list takes some 500 bytes besides its numbers


@dataclass(frozen=True)
class Budget:
    """What one evaluator may use.

    memory_bytes: of values, constants, states and what the kernels need besides; by default toolkit.limits.memory_bytes(), half of the
    machine's. operations: of one prediction; by default toolkit.limits.operations(), about a minute of one processor.
    """

    memory_bytes: int = field(default_factory=machine.memory_bytes)
    operations: float = field(default_factory=machine.operations)

    @property
    def live(self) -> int:
        """Elements of all values alive at once: half of the memory, at 8 bytes each, as `exact` mode has them."""
        return self.memory_bytes // 16

    @property
    def elements(self) -> int:
        """Elements of one value."""
        return self.live // 2

    @property
    def scratch(self) -> int:
        """Elements of a tensor within one op, such as a padded copy."""
        return self.live

    @property
    def model_bytes(self) -> int:
        """Bytes of the program: packed numbers become eight times as large when they are read, and are then copied."""
        return min(MAX_MODEL_BYTES, max(1 << 20, self.memory_bytes // 64))

    @property
    def fields(self) -> int:
        """Fields of the program's protobuf; a message takes some 100 bytes in memory, and 2 in the file."""
        return min(MAX_FIELDS, max(1 << 16, self.memory_bytes // 1024))


class Work:
    """What is left of one prediction's operations, or of those of reading a package."""

    def __init__(self, budget: Budget, predictions: int = 1) -> None:
        self.budget = budget
        self.left = self.most = budget.operations * predictions

    def check(self, operations: float) -> None:
        """Raises ArtifactError where there are not so many left."""
        if operations > self.left:
            raise ArtifactError(
                f"with it the prediction would take {self.most - self.left + operations:.1e} operations or more; {self.most:.1e} are "
                f"allowed. If you trust the model, allow more: Budget(operations=…), or {machine.WORK_VARIABLE} in 10^12 operations"
            )

    def spend(self, operations: float) -> None:
        """Raises ArtifactError where there are not so many left."""
        self.check(operations)
        self.left -= operations


_WORK: ContextVar[Work] = ContextVar("work")


def current() -> Work:
    """That of the evaluator that is at work; outside of one, what is allowed by default."""
    return _WORK.get(None) or Work(Budget())


@contextmanager
def applied(work: Work) -> Iterator[Work]:
    """Makes `work` what `current` returns."""
    token = _WORK.set(work)
    try:
        yield work
    finally:
        _WORK.reset(token)
