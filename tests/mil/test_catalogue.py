"""The table of ops is complete by Apple's own registry, and the page in docs is the one the code makes."""

from pathlib import Path

from toolkit.mil._coremltools import import_coremltools
from toolkit.mil.catalogue import inserted, rows
from toolkit.mil.ops.table import OPS

ELSEWHERE = {"const", "_const_symbolic"}  # const is the binder's; the other never reaches a file
IN_FILES_ONLY = {"write_state"}  # coremltools writes it, under this name, for its coreml_update_state


def test_every_op_of_ios15_to_ios18_is_there_and_no_other() -> None:
    import_coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    assert set(SSAOpRegistry.core_ops) - ELSEWHERE | IN_FILES_ONLY == set(OPS)


def test_every_op_says_since_when_as_the_registry_does() -> None:
    import_coremltools()
    from coremltools import target
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    since = {name: max(15, {target.iOS15: 15, target.iOS16: 16, target.iOS17: 17, target.iOS18: 18}.get(min(classes), 15))
             for name, classes in SSAOpRegistry.core_ops.items()}  # fmt: skip
    found = {name: ios for name, ios, _ in rows() if name not in IN_FILES_ONLY}
    assert found == {name: since[name] for name in found}


def test_the_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs/mil.md"
    assert page.read_text() == inserted(page.read_text()), "run make docs"
