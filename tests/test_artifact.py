"""An artifact proves itself: whatever is changed in its folder is found before anything is run."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from toolkit import artifact as module
from toolkit.artifact import GOLDEN, MANIFEST, Artifact, describe_preprocessing, image_spec, output_specs, write_artifact
from toolkit.checkpoint import MAX_CARD_BYTES, Checkpoint
from toolkit.errors import ArtifactError
from toolkit.tensors import TensorSpec

NAMES = ("coreml-fp16", "onnx-fp32")
FIELDS = {
    "format": "onnx", "precision": "fp32", "model": "tiny", "entry": "model.bin", "input_kind": "tensor",
    "inputs": (image_spec((1, 2, 2)),),
    "outputs": output_specs(2), "class_labels": ["a", "b"], "preprocessing": "none", "recipe_hash": "0", "checkpoint_sha256": "1",
    "test_accuracy": None, "versions": {},
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    """An artifact that took no training: a model file of five bytes and golden outputs of three images."""
    folder = tmp_path / "onnx-fp32"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"model")
    return write_artifact(folder, FIELDS, np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2), np.eye(3, 2))


def edit(folder: Path, **changes) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def relist(folder: Path, name: str) -> None:
    """Makes the manifest name a changed file as it is now: what no checksum finds."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    edit(folder, files=files | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        Artifact.open(folder)
    assert str(folder) in str(caught.value)


def golden_refused(found: Artifact, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        found.golden()
    assert str(found.folder / GOLDEN) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_an_export_is_listed_with_its_sha256(exported, name):
    found = Artifact.open(exported.exports / name)
    there = {
        path.relative_to(found.folder).as_posix(): path for path in found.folder.rglob("*") if path.is_file() and path.name != MANIFEST
    }
    there |= {path.relative_to(found.folder).as_posix(): path for path in found.entry.rglob("*") if path.is_file()}
    assert found.manifest.files == {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in there.items()}
    assert found.id == name
    assert found.entry.exists()


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_in_any_file_is_found_and_the_file_named(exported_copy, name):
    folder = exported_copy.exports / name
    for file in Artifact.open(folder).manifest.files:
        path = folder / file
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            refused(folder, f"{file} was changed after the export: sha256 expected [0-9a-f]{{64}}, found [0-9a-f]{{64}}")
        path.write_bytes(whole)
    Artifact.open(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_found_and_named(exported_copy, name):
    folder = exported_copy.exports / name
    for file in Artifact.open(folder).manifest.files:
        (folder / file).rename(folder / "away")
        refused(folder, f"{file} is missing. Copy the whole folder, or export again")
        (folder / "away").rename(folder / file)


def test_what_was_written_reads_back_equal(made: Artifact):
    found = Artifact.open(made.folder)
    assert found == made
    assert (found.format, found.id, found.entry.read_bytes()) == ("onnx", "onnx-fp32", b"model")
    images, logits = found.golden()
    assert np.array_equal(images, np.arange(12).reshape(3, 1, 2, 2))
    assert np.array_equal(logits, [[1, 0], [0, 1], [0, 0]])
    assert (images.dtype, logits.dtype) == (np.float32, np.float64)


def test_an_artifact_may_lie_behind_a_link_and_be_moved(made: Artifact, tmp_path: Path):
    (tmp_path / "link").symlink_to(made.folder)
    assert Artifact.open(tmp_path / "link").manifest == made.manifest
    shutil.move(made.folder, tmp_path / "moved")
    assert Artifact.open(tmp_path / "moved").manifest == made.manifest


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path):
    refused(tmp_path, r"is no artifact of ours: it has no manifest\.json\. Make one with: toolkit export")
    refused(tmp_path / "nothing", r"is no artifact of ours")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "onnx"}', "\x00\xff", 100_000 * "["], ids=range(6))
def test_a_manifest_that_is_none_is_an_error(made: Artifact, text: str):
    (made.folder / MANIFEST).write_text(text, encoding="latin-1")
    refused(made.folder, r"manifest\.json cannot be read as a manifest: .*Export again")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2}, {"unknown": 1}, {"inputs": []}, {"outputs": []}, {"class_labels": ["one"]}, {"input_kind": "sound"},
        {"files": ["model.bin"]}, {"inputs": [{"name": "image"}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_with_a_wrong_value_is_an_error(made: Artifact, change):
    edit(made.folder, **change)
    refused(made.folder, r"manifest\.json cannot be read as a manifest")


def test_a_manifest_that_is_larger_than_any_of_ours_is_not_read(made: Artifact):
    with (made.folder / MANIFEST).open("ab") as file:
        file.truncate(MAX_CARD_BYTES + 1)
    refused(made.folder, f"has {MAX_CARD_BYTES + 1:,} bytes; at most {MAX_CARD_BYTES:,} are read. Export again")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "{absolute}", "..\\outside", "", ".", "model.bin\0"])
def test_a_name_outside_the_folder_is_never_opened(made: Artifact, tmp_path: Path, name: str):
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    name = name.format(absolute=outside)
    edit(made.folder, files=made.manifest.files | {name: hashlib.sha256(b"secret").hexdigest()})
    refused(made.folder, "which is outside the artifact. Do not use this artifact")


@pytest.mark.parametrize("whole", [False, True], ids=["a file", "a folder above it"])
def test_a_link_to_outside_is_never_followed(made: Artifact, tmp_path: Path, whole: bool):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "outside").write_bytes(b"secret")
    (made.folder / "link").symlink_to(tmp_path / "far" if whole else tmp_path / "far" / "outside")
    edit(made.folder, files=made.manifest.files | {"link/outside" if whole else "link": hashlib.sha256(b"secret").hexdigest()})
    refused(made.folder, "is a link to outside the artifact. Do not use this artifact")


def test_links_in_a_circle_are_an_error(made: Artifact):
    (made.folder / "one").symlink_to("two")
    (made.folder / "two").symlink_to("one")
    edit(made.folder, files=made.manifest.files | {"one": "0"})
    refused(made.folder, "one (cannot be read|is missing)")


def test_a_name_that_no_file_system_takes_is_an_error(made: Artifact):
    edit(made.folder, files=made.manifest.files | {300 * "x": "0"})
    refused(made.folder, "cannot be read: .*File name too long")


@pytest.mark.parametrize("entry", ["other.bin", "", ".", "..", "a/model.bin", "./model.bin", "/model.bin", "../model.bin", "manifest.json"])
def test_an_entry_that_is_not_among_the_files_is_an_error(made: Artifact, entry: str):
    edit(made.folder, entry=entry)
    refused(made.folder, "its entry .* is not among its files. Export again")


def test_golden_outputs_that_are_not_listed_prove_nothing(made: Artifact):
    edit(made.folder, files={"model.bin": made.manifest.files["model.bin"]})
    refused(made.folder, r"does not list golden\.npz, so nothing would prove the file")


def test_damaged_golden_outputs_are_an_error_even_when_the_manifest_names_them(made: Artifact):
    path, whole = made.folder / GOLDEN, (made.folder / GOLDEN).read_bytes()
    generator = np.random.default_rng(0)
    truth, refusals = made.golden(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            found = made.golden()
        except ArtifactError:
            refusals += 1
        else:  # a byte that means nothing, such as a date
            assert all(np.array_equal(one, other) for one, other in zip(found, truth, strict=True))
    assert refusals > 100


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x05\x06" + 18 * b"\0"], ids=["empty", "text", "an empty zip"])
def test_golden_outputs_that_are_no_npz_are_an_error(made: Artifact, data: bytes):
    (made.folder / GOLDEN).write_bytes(data)
    relist(made.folder, GOLDEN)
    golden_refused(Artifact.open(made.folder), "cannot be read as golden outputs: .*Export again")


def test_missing_golden_outputs_are_an_error(made: Artifact):
    (made.folder / GOLDEN).unlink()
    golden_refused(made, "golden.npz cannot be read: No such file")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickled_array_is_refused_and_runs_nothing(made: Artifact, tmp_path: Path):
    bomb = np.array([Bomb(tmp_path / "made by the bomb")], dtype=object)
    np.savez(made.folder / GOLDEN, images=bomb, logits=bomb)
    relist(made.folder, GOLDEN)
    golden_refused(Artifact.open(made.folder), "cannot be read as golden outputs: Object arrays cannot be loaded")
    assert not (tmp_path / "made by the bomb").exists()


def test_a_zip_that_unpacks_to_more_than_memory_is_not_unpacked(made: Artifact, monkeypatch):
    monkeypatch.setattr(module, "MAX_GOLDEN_BYTES", 1 << 20)
    with zipfile.ZipFile(made.folder / GOLDEN, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(1 << 21))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    golden_refused(made, f"it unpacks to {1 << 21} bytes; at most {1 << 20} are read")


def test_an_array_that_claims_a_size_beyond_memory_is_an_error(made: Artifact):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 58,)})
    with zipfile.ZipFile(made.folder / GOLDEN, "w") as archive:
        for name in ("images", "logits"):
            archive.writestr(f"{name}.npy", header.getvalue())
    golden_refused(made, "golden.npz cannot be read as golden outputs: Unable to allocate")


@pytest.mark.parametrize(
    ("images", "logits", "message"),
    [
        (np.zeros((3, 1, 2, 3), np.float32), np.zeros((3, 2)), "do not fit the manifest"),
        (np.zeros((3, 1, 2, 2), np.float32), np.zeros((2, 2)), "do not fit the manifest"),
        (np.zeros((3, 1, 2, 2), np.float32), np.zeros((3, 3)), "do not fit the manifest"),
        (np.float32(0), np.float64(0), "do not fit the manifest"),
        (np.zeros((0, 1, 2, 2), np.float32), np.zeros((0, 2)), "nothing that can prove a file"),
        (np.zeros((3, 1, 2, 2), np.uint8), np.zeros((3, 2)), "nothing that can prove a file"),
        (np.zeros((3, 1, 2, 2), np.float32), np.full((3, 2), "x"), "nothing that can prove a file"),
        (np.zeros((3, 1, 2, 2), np.float32), np.full((3, 2), np.nan), "nothing that can prove a file"),
        (np.full((3, 1, 2, 2), np.nan, np.float32), np.zeros((3, 2)), "nothing that can prove a file"),
    ],
    ids=["image size", "count", "classes", "scalars", "empty", "images' type", "logits' type", "nan", "a pixel is nan"],
)
def test_golden_outputs_that_do_not_fit_the_manifest_are_an_error(made: Artifact, images, logits, message):
    np.savez(made.folder / GOLDEN, images=images, logits=logits)
    golden_refused(made, message)


def test_golden_outputs_of_an_export_are_what_pytorch_computes_in_float64(exported):
    import torch

    from toolkit.networks import from_checkpoint

    classifier = from_checkpoint(Checkpoint.open(exported.checkpoint)).double()
    for name in NAMES:
        images, logits = Artifact.open(exported.exports / name).golden()
        with torch.inference_mode():
            assert np.abs(classifier(torch.from_numpy(images).double()).numpy() - logits).max() < 1e-9


def test_a_checkpoint_is_an_artifact_of_format_torch(trained):
    checkpoint = Checkpoint.open(trained.checkpoint)
    found = Artifact.of_checkpoint(checkpoint)
    assert (found.id, found.format, found.entry) == ("torch", "torch", checkpoint.weights_path)
    assert found.manifest.inputs == (TensorSpec(name="image", shape=(-1, 1, 28, 28), dtype="float32", low=0, high=255),)
    assert found.manifest.class_labels == list("0123456789")
    assert found.manifest.test_accuracy == checkpoint.card.metrics["test_accuracy"]
    assert found.manifest.files == {"model.safetensors": checkpoint.card.weights_sha256}


def test_outputs_are_logits_and_probabilities_and_a_label_where_asked():
    assert [(spec.name, spec.shape, spec.dtype) for spec in output_specs(10)] == [
        ("logits", (-1, 10), "float32"),
        ("probabilities", (-1, 10), "float32"),
    ]
    assert [(spec.name, spec.shape, spec.dtype) for spec in output_specs(10, batch=1, labels=True)][2] == ("classLabel", (1,), "str")


def test_the_preprocessing_is_described_with_the_figures_of_the_recipe(trained):
    text = describe_preprocessing(Checkpoint.open(trained.checkpoint))
    assert all(part in text for part in ("28×28", "32×32", "0.1558", "0.2774"))
