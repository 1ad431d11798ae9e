"""The command line: results on standard output, progress on standard error, one message and an exit code for every end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit import __version__, cli, errors
from toolkit.data import load
from toolkit.workspace import Workspace

COMMANDS = ("train", "export", "validate", "bench", "report", "predict", "inspect", "doctor")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def one_json(text: str) -> Any:
    """The one JSON document in it; anything before or after is an error."""
    return json.loads(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = run(capsys, command, "--help")
    assert code == 0
    assert out.startswith("Usage:")
    assert "--json" in out
    assert err == ""


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"{__version__}\n", "")


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "toolkit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "trian"),
        (["train", "--epoch-count", "3"], "--epoch-count"),
        (["train", "--epochs", "three"], "'--epochs'"),
        (["train", "--epochs", "0"], "train.epochs"),
        (["train", "--seed", "-1"], "train.seed"),
        (["train", "--set", "train.lr"], "section.key=value"),
        (["train", "--set", "train.lrr=1"], "train.lrr: there is no such key"),
        (["train", "no-such-model"], "resnet18-digits"),
        (["train", "--device", "tpu"], "'tpu'"),
        (["validate", "--limit", "0"], "--limit"),
        (["validate", "--runtime", "coreml"], "coreml-reference"),
        (["validate", "--hazards", "--junit", "j.xml"], "--hazards is no validation: --junit"),
        (["validate", "--hazards", "--self-test"], "--hazards is no validation: --self-test"),
        (["validate", "--self-test", "--fail-on", "files"], "--self-test is no validation: --fail-on"),
        (["validate", "--memory-limit", "inf"], "give a finite number"),
        (["bench", "--quick", "--publish"], "exclude each other"),
        (["bench", "--batch", "0"], "--batch"),
        (["bench", "--runtime", "gpu"], "torch-cpu"),
        (["bench", "--scenario", "paced"], "--hz N belong together"),
        (["bench", "--quick", "--fail-if-slower"], "--fail-if-slower needs verdicts"),
        (["bench", "--shape", "x=1x3"], "--shape and --out are for model files"),
        (["bench", "gone.onnx"], "there is no file gone.onnx"),
        (["bench", "gone.onnx", "--shape", "x:1x3"], "--shape x:1x3: give it as NAME=1x3x224x224"),
        (["bench", "gone.onnx", "--artifact", "onnx-fp32"], "--artifact is for models"),
        (["bench", "--against", "gone.json"], "gone.json"),
        (["report", "gone.json"], "gone.json cannot be read"),
        (["export"], "--format"),
        (["export", "--format", "tflite"], "coreml, onnx, coreai"),
        (["export", "--format", "onnx", "--precision", "int8"], "'int8'"),
        (["export", "--format", "coreml", "--target", "iOS12"], "iOS15"),
        (["export", "--format", "coreml", "--input", "video"], "'video'"),
        (["predict", "nothing.png"], "toolkit train"),
        (["predict"], "Missing argument"),
        (["inspect", "nothing"], "neither an artifact"),
        (["report"], "no checkpoint"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_MODELS", str(tmp_path / "models"))
    code, out, err = run(capsys, *arguments)
    assert code == errors.BAD_INPUT
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "models").exists()  # nothing half-written is left


@pytest.mark.parametrize(("command", "words"), [
    (["export"], "torchrun is for `toolkit train` and `toolkit validate`; run `toolkit export` by itself"),
    (["bench"], "run `toolkit bench` by itself"),
    (["validate", "--self-test"], "torchrun shares no --self-test: run that by itself"),
    (["validate", "--hazards"], "torchrun shares no --hazards"),
])  # fmt: skip
def test_processes_of_torchrun_do_not_each_do_the_whole_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exported: Workspace, command: list[str], words: str
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    code, out, err = run(capsys, *command, f"{exported.folder}/")
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has the device that is asked for here")
def test_a_device_that_is_not_there_is_never_a_silent_cpu_run(capsys: pytest.CaptureFixture[str], fresh: Workspace) -> None:
    code, _, err = run(capsys, "train", str(fresh.folder), "--device", "mps")
    assert code == errors.BAD_INPUT
    assert "--device mps was asked for, but" in err
    assert not fresh.checkpoint.exists()


def test_a_bug_of_ours_keeps_its_traceback_and_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit import doctor

    def broken() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(doctor, "examine", broken)
    code, out, err = run(capsys, "doctor")
    assert (code, out) == (errors.BUG, "")
    assert "Traceback (most recent call last)" in err
    assert "  ValueError: a bug\n" in err
    assert f"this is a bug of toolkit {__version__}. Please report it" in err


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from toolkit import doctor

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupted)
    code, out, err = run(capsys, "doctor")
    assert code == errors.INTERRUPTED
    assert "Traceback" not in out + err


def test_train_gives_one_json_document_and_its_progress_elsewhere(capsys: pytest.CaptureFixture[str], fresh: Workspace) -> None:
    code, out, err = run(capsys, "train", str(fresh.folder), "--device", "cpu", "--epochs", "1", "--seed", "3", "--json")
    assert code == 0
    assert one_json(out)["finished"] is True
    assert "device: cpu (asked for by name)" in err
    card = json.loads((fresh.checkpoint / "checkpoint.json").read_text())
    assert (card["seed"], card["recipe"]["train"]["epochs"]) == (3, 1)


def test_export_gives_one_json_document_although_libraries_print(capfd: pytest.CaptureFixture[str], exported_copy: Workspace) -> None:
    code, out, err = run(capfd, "export", str(exported_copy.folder), "--format", "coreml", "--format", "onnx", "--json")
    assert code == 0
    assert [each["format"] for each in one_json(out)] == ["coreml", "onnx"]
    assert "exporting coreml-fp16" in err
    assert "pipeline" not in err  # coreml's own bars


def test_validate_exits_0_when_nothing_changed_and_1_on_a_breach(capsys: pytest.CaptureFixture[str], exported_copy: Workspace) -> None:
    ask = ("validate", str(exported_copy.folder), "--runtime", "onnxruntime-cpu", "--limit", "20", "--json")
    code, out, _ = run(capsys, *ask)
    assert (code, one_json(out)["passed"]) == (0, True)
    with (exported_copy.exports / "coreml-fp16" / "manifest.json").open("a", encoding="utf-8") as manifest:
        manifest.write("}")
    code, out, _ = run(capsys, *ask)
    assert (code, one_json(out)["passed"]) == (errors.CHECK_FAILED, False)
    code, out, _ = run(capsys, *ask[:-1])
    assert code == errors.CHECK_FAILED
    assert "FAILED: coreml-fp16, files: files are those of the export" in out


def test_bench_exits_0_with_figures_and_1_when_an_arm_failed(
    capsys: pytest.CaptureFixture[str], exported: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ("bench", str(exported.folder), "--quick", "--runtime", "null", "--json")
    code, out, _ = run(capsys, *ask)
    assert (code, one_json(out)["arms"][0]["runtime"]) == (0, "null")
    monkeypatch.setattr(sys.modules["toolkit.bench.bench"], "take", lambda jobs, shuffle: (["was killed by SIGKILL"] * len(jobs), []))
    code, out, _ = run(capsys, *ask)
    assert (code, one_json(out)["arms"][0]["error"]) == (errors.CHECK_FAILED, "was killed by SIGKILL")


def test_report_inspect_and_doctor_give_one_json_document(capsys: pytest.CaptureFixture[str], exported: Workspace) -> None:
    code, out, _ = run(capsys, "report", str(exported.folder), "--json")
    assert code == 0
    assert Path(one_json(out)["html"]).is_file()
    code, out, _ = run(capsys, "inspect", str(exported.exports / "onnx-fp32"), "--json")
    assert (code, one_json(out)["rows"]["format"]) == (0, "onnx")
    code, out, _ = run(capsys, "doctor", "--json")
    assert code in (errors.DONE, errors.BAD_INPUT)
    assert "torch-cpu" in {each["id"] for each in one_json(out)["runtimes"]}


@pytest.mark.parametrize("runtime", ["torch-cpu", "onnxruntime-cpu", "coreml-reference"])
def test_predict_reads_a_digit_from_a_file_on_any_runtime(
    capsys: pytest.CaptureFixture[str], exported: Workspace, tmp_path: Path, runtime: str
) -> None:
    data = load("digits")
    for name, image in (("light.png", data.test_images[0, 0].numpy()), ("dark.png", 255 - data.test_images[0, 0].numpy())):
        Image.fromarray(image).save(tmp_path / name)
    pictures = [str(tmp_path / "light.png"), str(tmp_path / "dark.png")]
    code, out, _ = run(capsys, "predict", str(exported.folder), *pictures, "--runtime", runtime, "--json")
    assert code == 0
    found = one_json(out)["predictions"]
    assert [each["inverted"] for each in found] == [False, True]
    assert found[0]["top"] == found[1]["top"]
    assert found[0]["top"][0][0] == data.classes[int(data.test_labels[0])]
    assert len(found[0]["top"]) == 3


def test_a_table_is_printed_without_json(capsys: pytest.CaptureFixture[str], exported: Workspace) -> None:
    code, out, _ = run(capsys, "inspect", str(exported.checkpoint))
    assert code == 0
    assert "total parameters" in out
    assert "6,186" in out


def test_a_terminal_without_our_signs_is_no_reason_to_fail() -> None:
    """doctor and the help print dashes and arrows; where there is only ASCII they are escaped."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    def run_script(script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)

    assert "UnicodeEncodeError" in run_script("print('\\u0394')").stderr  # what a plain print would do
    done = run_script("from toolkit.cli import ending, main; ending._command = lambda _: print('\\u0394') or 0; main([])")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "\\u0394", "")
