"""The checks as JUnit XML, which CI systems show: a test suite for each artifact, a test case for each check."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from toolkit.printable import line
from toolkit.validation.result import Check, ValidationResult
from toolkit.workspace import Workspace
from toolkit.writing import check_named, write_text

MARK = b'<testsuites name="toolkit validate '


def check(path: Path, workspace: Workspace) -> None:
    """Raises ToolkitError where `write` must not write to `path`: to be asked before anything is validated."""
    check_named(path, "JUnit file", MARK, [workspace.recipe, workspace.checkpoint, workspace.exports])


def write(result: ValidationResult, path: Path) -> None:
    """Raises ToolkitError where nothing can be written."""
    root = ElementTree.Element("testsuites", name=line(f"toolkit validate {result.model}"), time=f"{result.seconds:.3f}")
    names = list(
        dict.fromkeys([*(check.artifact for check in result.checks), *(each.artifact or "no artifact" for each in result.unavailable)])
    )
    for name in names:
        checks = [check for check in result.checks if check.artifact == name]
        skipped = [each for each in result.unavailable if (each.artifact or "no artifact") == name]
        failed, unjudged = (sum(check.passed is state for check in checks) for state in (False, None))
        suite = _element(
            root,
            "testsuite",
            name=name,
            tests=str(len(checks) + len(skipped)),
            failures=str(failed),
            errors="0",
            skipped=str(len(skipped) + unjudged),
        )
        for check in checks:
            _case(suite, check)
        for each in skipped:
            case = _element(suite, "testcase", classname=f"{name}.{each.runtime}", name="runs here")
            _element(case, "skipped", message=each.reason)
    if not result.proved:  # then the command fails as well, unless --fail-on leaves out what was not judged
        suite = _element(root, "testsuite", name=result.model, tests="1", failures="1", errors="0", skipped="0")
        case = _element(suite, "testcase", classname=result.model, name="something that may ship was compared")
        _element(case, "failure", message="nothing was compared with PyTorch, or nothing could be judged", type="nothing")
    ElementTree.indent(root)
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n")


def _case(suite: ElementTree.Element, check: Check) -> None:
    where = ".".join(part for part in (check.artifact, check.runtime, check.level) if part)
    case = _element(suite, "testcase", classname=where, name=check.name)
    if check.passed is None:
        _element(case, "skipped", message=f"{check.figure}. {check.detail}")
    elif not check.passed:
        failure = _element(case, "failure", message=f"{check.figure}, allowed {check.gate}", type=check.level)
        failure.text = "\n".join(line(part) for part in (check.detail, f"gate: {check.gate} ({check.why})") if part)


def _element(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    """XML 1.0 cannot hold control characters, and names come from files that others wrote."""
    return ElementTree.SubElement(parent, tag, {name: line(value) for name, value in attributes.items()})
