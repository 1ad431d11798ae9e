"""An exported program of a stranger: what is left out runs nothing, and what is left computes the same numbers."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.running import OTHERS, PROGRAMS, Touch, canary, honest, unpickled, write
from toolkit.errors import ArtifactError
from toolkit.runtimes import RUNTIMES, pt2_words
from toolkit.runtimes.pt2 import checked_copy
from toolkit.runtimes.strangers import admit

AUDITED = """
import sys
import torch
from collections.abc import Callable
from pathlib import Path
import toolkit.runtimes.files
from toolkit.runtimes import RUNTIMES
torch.export.load(sys.argv[2]).module()  # an honest file first: torch imports and compiles its own on the way
seen = []
sys.addaudithook(lambda name, args: seen.append((name, str(args)[:200])) if name in NAMES else None)
RUNTIMES["torch-cpu"].open_file(Path(sys.argv[1]))
print([each for each in seen if "torch." not in each[1]])
"""
NAMES = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "ctypes.dlopen", "socket.connect")


def evil_but_left_out(model: Path, samples: bytes | None = None) -> Path:
    """A pickle of sample inputs, guards and notes that are code, and a note of its author's: torch would run the first two."""
    members = honest(model / "evil.pt2")
    parsed = json.loads(members["models/model.json"])
    code = f"__import__('pathlib').Path({str(canary(model))!r}).write_text('ran')"
    parsed["guards_code"] = [code]
    parsed["graph_module"]["graph"]["nodes"][0]["metadata"] |= {"source_fn_stack": "x,torch.os.system", "stack_trace": f"\n{code}"}
    members |= {
        "models/model.json": json.dumps(parsed).encode(),
        "data/sample_inputs/model.pt": samples or members["data/sample_inputs/model.pt"],
        "extra/x.py": code.encode(),
    }
    write(model / "evil.pt2", members)
    return model / "evil.pt2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "models" / "tiny"
    found.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    ("suffix", "plant", "words"),
    [*(("pt2", plant, words) for _, plant, words in PROGRAMS), *((suffix, plant, words) for _, suffix, plant, words in OTHERS)],
    ids=[*(name for name, _, _ in PROGRAMS), *(name for name, *_ in OTHERS)],
)
def test_what_could_run_code_is_refused_by_name(folder: Path, suffix: str, plant: Callable[[Path], None], words: str):
    plant(folder)
    (folder / "copy").mkdir()
    with pytest.raises(ArtifactError, match=f"(?s){words}") as caught:
        admit(folder / f"evil.{suffix}", folder / "copy")
    assert len(str(caught.value)) < 2000
    assert list((folder / "copy").iterdir()) == []
    assert not canary(folder).exists()


def test_nothing_of_what_is_left_out_runs(folder: Path):
    path = evil_but_left_out(folder, unpickled(folder))
    honest(folder / "honest.pt2")
    script = f"NAMES = {NAMES!r}\n{AUDITED}"
    done = subprocess.run(
        [sys.executable, "-c", script, path, folder / "honest.pt2"], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.strip() == "[]"
    assert not canary(folder).exists()


def test_torch_itself_would_have_run_it(folder: Path):
    """So that the attacks of running.py are none of a straw man."""
    path = evil_but_left_out(folder)
    torch.export.load(str(path)).module()(torch.zeros(2, 3))
    assert canary(folder).read_text() == "ran"


def test_what_is_left_computes_the_same(folder: Path):
    honest(folder / "honest.pt2")
    session = RUNTIMES["torch-cpu"].open_file(folder / "honest.pt2")
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(session({"x": x})["0"], 2 * x + 1)


class Rich(torch.nn.Module):
    """Sizes that are open, control flow, infinities, a buffer that changes, integers, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = torch.nn.TransformerEncoderLayer(16, 2, batch_first=True)
        self.table = torch.nn.Embedding(10, 16)
        self.recur = torch.nn.LSTM(16, 4, batch_first=True)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> dict[str, object]:
        batch, length = ids.shape
        self.seen.add_(1)
        mask = torch.full((length, length), float("-inf")).triu(1)
        with torch.no_grad():
            hidden = self.attend(self.table(ids), src_mask=mask)
        hidden = torch.cond(hidden.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (hidden,))
        return {"flat": self.recur(hidden)[0].reshape(batch * length, -1), "best": [hidden.topk(2)[0], self.seen * length]}


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of an LSTM, by torch.export
def test_a_rich_program_comes_through(folder: Path):
    torch.manual_seed(0)
    ids = torch.arange(10).reshape(2, 5)
    dims = {0: torch.export.Dim("b", max=100)}  # an LSTM's length is fixed when it is exported
    program = torch.export.export(Rich().eval(), (ids,), dynamic_shapes=(dims,))
    torch.export.save(program, folder / "rich.pt2")
    (folder / "copy").mkdir()
    copy = checked_copy(folder / "rich.pt2", folder / "copy")
    with torch.inference_mode():
        found, wanted = (torch.export.load(str(path)).module()(ids.flip(0).repeat(2, 1)) for path in (copy, folder / "rich.pt2"))
    assert torch.equal(found["flat"], wanted["flat"])
    assert all(torch.equal(one, other) for one, other in zip(found["best"], wanted["best"], strict=True))


def test_a_byte_that_is_changed_is_refused_or_changes_no_more_than_numbers(folder: Path):
    """Whatever is changed: an ArtifactError, or a program that torch reads."""
    honest(folder / "honest.pt2")
    whole, random = (folder / "honest.pt2").read_bytes(), np.random.default_rng(0)
    path, copies, refused = folder / "changed.pt2", folder / "copies", 0
    copies.mkdir()
    for _ in range(300):
        changed = bytearray(whole)
        changed[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        (copies / path.name).unlink(missing_ok=True)
        try:
            checked_copy(path, copies)
        except ArtifactError:
            refused += 1
    assert refused > 100


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="s0123456789+-*/%(),. _'=<>!ASymbolIntegerPow", max_size=60))
def test_an_expression_that_passes_is_arithmetic(text: str):
    try:
        pt2_words.expression(text)
    except ValueError:
        return
    import sympy

    locals_ = {name: getattr(torch.utils._sympy.functions, name) for name in ("FloorDiv", "Mod", "CleanDiv")}
    try:
        found = sympy.sympify(text, locals=locals_)
    except (TypeError, ValueError, AttributeError, sympy.SympifyError, ZeroDivisionError):
        return  # such as a call with too few arguments
    assert isinstance(found, sympy.Basic | type | tuple | bool)  # a value, or a class that the text names and does not call


@pytest.mark.parametrize(
    "text",
    [
        "s0", "2*s0 + 1", "s0**2", "s0 >= 2", "Eq(s0, 3)", "true", "Rational(1, 2)", "Float('0.5', precision=53)",
        "Mul(Integer(24), Max(Integer(1), Add(Symbol('s53', positive=True, integer=True), Integer(-2))))",
        "FloorDiv(Symbol('s1', integer=True), Integer(2))", "Pow(Symbol('s0', integer=True), Integer(2))",
        "StrictLessThan(Symbol('u0', integer=True), Integer(5))",
    ],
)  # fmt: skip
def test_what_torch_writes_is_arithmetic(text: str):
    assert pt2_words.expression(text) == text


def test_a_pickle_of_ours_is_what_it_seems(folder: Path):
    """The canary of the attacks sings."""
    import pickle

    pickle.loads(pickle.dumps(Touch(canary(folder))))
    assert canary(folder).read_text() == "ran"
