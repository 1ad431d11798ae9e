"""What CI reads: a case for each check, a failure for each that failed, a skip for what could not run."""

import xml.etree.ElementTree as ElementTree

from tests.validation.conftest import cli, path_of, spoil_onnx
from toolkit.validation import junit


def test_every_check_is_a_case_and_failures_say_why(quick, exported_copy, tmp_path):
    spoil_onnx(exported_copy, lambda kernels: kernels[::-1].copy())
    result = quick(exported_copy, runtimes=["onnxruntime-cpu", "onnxruntime-coreml"], artifacts=["onnx-fp32"])
    junit.write(result, tmp_path / "out.xml")
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    cases = root.findall(".//testcase")
    assert len(cases) == len(result.checks) + len(result.unavailable)
    assert len(root.findall(".//failure")) == len(result.breaches) > 0
    assert [each.get("message") for each in root.findall(".//skipped")] == [each.reason for each in result.unavailable]
    (suite,) = root.findall("testsuite")
    assert (suite.get("name"), suite.get("failures"), suite.get("skipped")) == ("onnx-fp32", str(len(result.breaches)), "1")
    worst = next(case for case in cases if case.get("name") == "golden logits")
    assert worst.get("classname") == "onnx-fp32.onnxruntime-cpu.golden"
    assert "allowed ≤" in worst.find("failure").get("message")


def test_control_characters_of_a_dying_runtime_do_not_break_the_file(quick, exported_copy, tmp_path):
    result = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"])
    bad = result.checks[0].model_copy(update={"passed": False, "detail": "\x1b[31mred\x00 <b>&"})
    junit.write(result.model_copy(update={"checks": [bad]}), tmp_path / "out.xml")
    assert "red" in ElementTree.parse(tmp_path / "out.xml").getroot().find(".//failure").text


def test_the_command_writes_it_where_asked(exported_copy, in_process, tmp_path):
    path = tmp_path / "ci" / "validate.xml"
    words = ("--runtime", "onnxruntime-cpu", "--artifact", "onnx-fp32", "--junit", str(path))
    assert cli("validate", path_of(exported_copy), *words) == 0
    assert ElementTree.parse(path).getroot().tag == "testsuites"
