"""Distilled sets on disk: the format, what it refuses, and the space of the images."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from ddrank_core.data import distilled
from ddrank_core.errors import DataError
from ddrank_core.types import DistilledSet, ImageSpace, RealData

NORMALISED = ImageSpace(kind="normalised", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


def a_set(**changes) -> DistilledSet:
    """Six 3x4x5 images of three classes, not sorted by class, with soft labels."""
    generator = torch.Generator().manual_seed(0)
    values = {
        "images": torch.randn(6, 3, 4, 5, generator=generator),
        "labels": torch.tensor([2, 0, 1, 1, 2, 0]),
        "soft_labels": torch.randn(6, 3, generator=generator),
        "space": NORMALISED,
        "num_classes": 3,
        "learning_rate": 0.1 + 0.2,
        "info": {"dataset": "toy", "recorded_accuracies": {"ConvNet": [0.5, 0.25]}},
    }
    return DistilledSet(**{**values, **changes})


def real_data(**changes) -> RealData:
    values = {
        "train_images": torch.zeros(3, 3, 4, 5, dtype=torch.uint8),
        "train_labels": torch.arange(3),
        "test_images": torch.zeros(3, 3, 4, 5, dtype=torch.uint8),
        "test_labels": torch.arange(3),
        "class_names": ("cat", "dog", "frog"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "source": "made in the test",
    }
    return RealData(**{**values, **changes})


def stored(path: Path, entries: object, data: bytes = b"") -> Path:
    """Write a safetensors file with this header, whatever it says."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


METADATA = {
    "format": "ddrank-distilled",
    "format_version": "1",
    "space": '{"kind": "unit"}',
    "num_classes": "1",
    "info": "{}",
}
IMAGES = {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [8, 12]}
LABELS = {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}


def test_a_loaded_set_is_the_saved_one_bit_for_bit(tmp_path):
    saved = a_set()
    distilled.save(saved, tmp_path / "a.safetensors")
    loaded = distilled.load(tmp_path / "a.safetensors")
    for name in ("images", "labels", "soft_labels"):
        assert torch.equal(getattr(saved, name), getattr(loaded, name))
        assert getattr(saved, name).dtype == getattr(loaded, name).dtype
    for name in ("space", "num_classes", "soft_kind", "learning_rate", "info"):
        assert getattr(saved, name) == getattr(loaded, name)


def test_a_set_without_soft_labels_and_rate_comes_back_without_them(tmp_path):
    distilled.save(a_set(soft_labels=None, learning_rate=None), tmp_path / "a.safetensors")
    loaded = distilled.load(tmp_path / "a.safetensors")
    assert (None, None) == (loaded.soft_labels, loaded.learning_rate)


def test_the_safetensors_library_reads_our_files(tmp_path):
    saved = a_set()
    distilled.save(saved, tmp_path / "a.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert {"images", "labels", "soft_labels"} == set(tensors)
    assert torch.equal(saved.images, tensors["images"])
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert ("ddrank-distilled", "1", "3", "logits") == tuple(
        metadata[name] for name in ("format", "format_version", "num_classes", "soft_kind")
    )
    assert {"kind": "normalised", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]} == json.loads(
        metadata["space"]
    )
    assert 0.1 + 0.2 == float(metadata["learning_rate"])


def test_a_file_that_the_safetensors_library_wrote_is_read(tmp_path):
    tensors = {"images": torch.rand(2, 1, 3, 3), "labels": torch.tensor([1, 0])}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {**METADATA, "num_classes": "2"})
    loaded = distilled.load(tmp_path / "a.safetensors")
    assert torch.equal(tensors["images"], loaded.images)
    assert [1, 0] == loaded.labels.tolist()


def test_the_same_set_gives_the_same_bytes_in_every_process(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from ddrank_core.data.distilled import save;"
        "from ddrank_core.types import DistilledSet, ImageSpace;"
        "save(DistilledSet(images=torch.ones(1, 1, 2, 2), labels=torch.tensor([0]), num_classes=1,"
        "space=ImageSpace(kind='unit'), info={'b': 1, 'a': 2}), Path(sys.argv[1]))"
    )
    for name, seed in (("a", "1"), ("b", "2")):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_digest_is_the_sha256_of_the_file(tmp_path):
    distilled.save(a_set(), tmp_path / "a.safetensors")
    expected = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert expected == distilled.digest(tmp_path / "a.safetensors")


def test_header_describes_the_set(tmp_path):
    distilled.save(a_set(), tmp_path / "a.safetensors")
    header = distilled.header(tmp_path / "a.safetensors")
    assert ((3, 4, 5), 6, 3, 2) == (header.image_shape, header.n, header.num_classes, header.ipc)
    assert (True, 3, "logits", 0.1 + 0.2) == (
        header.has_soft,
        header.soft_width,
        header.soft_kind,
        header.learning_rate,
    )
    assert (NORMALISED, "toy") == (header.space, header.info["dataset"])


def test_header_needs_neither_torch_nor_numpy(tmp_path):
    distilled.save(a_set(), tmp_path / "a.safetensors")
    script = (
        "import sys; from pathlib import Path; from ddrank_core.data.distilled import header;"
        "header(Path(sys.argv[1])); print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.safetensors")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "[]\n" == done.stdout


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    distilled.save(a_set(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"a\.safetensors: cannot be written: No space left on device"):
        distilled.save(a_set(images=torch.zeros(6, 3, 4, 5)), path)
    assert [path] == list(tmp_path.iterdir())
    assert before == path.read_bytes()


def test_a_path_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent" / "a", tmp_path / "file" / "a", tmp_path / ("a" * 300)):
        with pytest.raises(DataError, match="cannot be written"):
            distilled.save(a_set(), path)


def test_an_invalid_set_is_not_written(tmp_path):
    with pytest.raises(DataError):
        distilled.save(a_set(labels=torch.tensor([3, 0, 1, 1, 2, 0])), tmp_path / "a.safetensors")
    assert [] == list(tmp_path.iterdir())


NAN = float("nan")
HALVES = torch.full((6, 3), 1 / 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": torch.zeros(6, 768)}, "images: rank 2 (shape 6x768), but must be 4"),
        ({"images": torch.zeros(6, 3, 4, 5).double()}, "images: torch.float64, but must be torch.float32"),
        ({"images": torch.zeros(6, 2, 4, 5)}, "images: 2 channels, but must be 1 (grey) or 3 (colour)"),
        ({"images": torch.zeros(0, 3, 4, 5)}, "images: empty (shape 0x3x4x5)"),
        ({"images": torch.zeros(5, 3, 4, 5)}, "labels: 6 for 5 images"),
        (
            {"images": torch.zeros(6, 3, 4, 5).index_fill_(0, torch.tensor([4]), NAN)},
            "images: NaN or Inf in 1 of 6 (the first is number 4)",
        ),
        ({"images": torch.full((6, 3, 4, 5), -float("inf"))}, "images: NaN or Inf in 6 of 6"),
        ({"labels": torch.zeros(6)}, "labels: torch.float32, but must be torch.int64"),
        ({"labels": torch.zeros(6, 1).long()}, "labels: rank 2"),
        (
            {"labels": torch.tensor([0, 1, 3, 0, 0, -1])},
            "labels: 2 out of range: number 2 is 3, but must be from 0 to 2",
        ),
        ({"num_classes": 0}, "num_classes: 0, but must be from 1"),
        ({"soft_labels": torch.zeros(6, 10)}, "soft_labels: 10 values per image for 3 classes"),
        ({"soft_labels": torch.zeros(5, 3)}, "soft_labels: 5 for 6 images"),
        ({"soft_labels": torch.full((6, 3), NAN)}, "soft_labels: NaN or Inf in 6 of 6"),
        ({"soft_labels": HALVES * 1.01, "soft_kind": "probabilities"}, "number 0 sum to 1.01, not 1"),
        (
            {"soft_labels": torch.tensor([[1.5, -0.5, 0.0]] * 6), "soft_kind": "probabilities"},
            "soft_labels: negative probabilities",
        ),
        ({"soft_kind": "scores"}, "soft_kind: 'scores', but must be logits or probabilities"),
        ({"space": ImageSpace(kind="hsv")}, "space: 'hsv', but must be unit, normalised or zca"),
        ({"space": attrs.evolve(NORMALISED, mean=(0.5,))}, "space: mean has length 1, but must have 3"),
        ({"space": attrs.evolve(NORMALISED, std=(1.0, 0.0, 1.0))}, "space: std must be above 0"),
        ({"space": attrs.evolve(NORMALISED, std=(1.0, NAN, 1.0))}, "space: std holds NaN or Inf"),
        ({"space": ImageSpace(kind="unit", mean=(0.5,) * 3)}, "space: mean has length 3, but must have 0"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0, but must be finite and above 0"),
        ({"learning_rate": NAN}, "learning_rate: nan, but must be finite and above 0"),
    ],
)
def test_a_faulty_set_is_refused_with_its_file_and_field(changes, expected):
    with pytest.raises(DataError) as caught:
        distilled.validate(a_set(**changes), "some/file")
    message = str(caught.value)
    assert message.startswith("some/file: ")
    assert expected in message
    assert "\n" not in message


def test_probabilities_may_be_off_by_rounding():
    distilled.validate(a_set(soft_labels=HALVES * 1.0005, soft_kind="probabilities"), "file")


@pytest.mark.parametrize("info", [{"a": {1, 2}}, {"a": NAN}])
def test_info_that_is_not_json_is_refused(tmp_path, info):
    with pytest.raises(DataError, match="info: cannot be written as JSON"):
        distilled.save(a_set(info=info), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("entries", "data", "expected"),
    [
        (b"[" * 100_000, b"", "header: damaged"),
        (b"[1, 2]", b"", "header: damaged: not a JSON object"),
        (b'{"images": 1, "images": 2}', b"", "header: damaged"),
        (
            {"images": IMAGES, "labels": LABELS},
            b"\0" * 12,
            "format: a safetensors file, but not a distilled set",
        ),
        ({"__metadata__": {**METADATA, "format_version": "2"}}, b"", "format_version: '2'"),
        ({"__metadata__": METADATA, "images": IMAGES}, b"", "labels: missing"),
        (
            {"images": {**IMAGES, "dtype": "F16"}, "labels": LABELS},
            b"\0" * 12,
            "images: must be F32, not F16",
        ),
        (
            {"images": {**IMAGES, "shape": [0, 1, 1, 1]}, "labels": LABELS},
            b"\0" * 12,
            "images: shape [0, 1, 1, 1]",
        ),
        ({"images": {**IMAGES, "shape": [1, 1, 1, 2**70]}, "labels": LABELS}, b"\0" * 12, "images: shape []"),
        (
            {"images": {**IMAGES, "shape": [2**62, 1, 1, 1]}, "labels": LABELS},
            b"\0" * 12,
            "do not hold shape",
        ),
        (
            {"images": {**IMAGES, "data_offsets": [8, 2**40]}, "labels": LABELS},
            b"\0" * 12,
            "images: cut off: ends at byte",
        ),
        ({"images": IMAGES, "labels": LABELS}, b"\0" * 11, "images: cut off"),
        ({"images": IMAGES, "labels": LABELS}, b"\0" * 13, "damaged: "),
        (
            {"images": {**IMAGES, "data_offsets": [0, 4]}, "labels": LABELS},
            b"\0" * 12,
            "overlap or leave gaps",
        ),
        ({"images": IMAGES, "labels": LABELS, "extra": LABELS}, b"\0" * 12, "'extra': unknown tensor"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_read_from_it(tmp_path, entries, data, expected):
    if isinstance(entries, dict) and "format:" not in expected:
        entries = {"__metadata__": METADATA, **entries}
    path = stored(tmp_path / "a.safetensors", entries, data)
    with pytest.raises(DataError) as caught:
        distilled.header(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_classes", "many", "num_classes: 'many' is not a number"),
        ("num_classes", "9" * 5000, "num_classes"),
        ("num_classes", 7, "num_classes: '7' is not a number"),
        ("learning_rate", "inf", "learning_rate: inf"),
        ("space", "unit", "space: damaged"),
        ("space", '{"kind": "normalised", "mean": [1e999], "std": [1]}', "space: mean holds NaN or Inf"),
        ("space", '{"kind": "unit", "mean": "x"}', "space: mean: must be a list of numbers"),
        ("space", '{"kind": ["unit"]}', "space: ['unit']"),
        ("soft_kind", "guesses", "soft_kind: 'guesses'"),
        ("info", "[]", "info: damaged: not a JSON object"),
        ("info", '{"a": NaN}', "info: damaged"),
    ],
)
def test_faulty_metadata_is_refused_with_its_field(tmp_path, field, value, expected):
    entries = {"__metadata__": {**METADATA, field: value}, "images": IMAGES, "labels": LABELS}
    path = stored(tmp_path / "a.safetensors", entries, b"\0" * 12)
    with pytest.raises(DataError) as caught:
        distilled.header(path)
    assert expected in str(caught.value)


def test_a_header_that_claims_ten_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 10 << 30) + b"{}")
    with pytest.raises(DataError, match="no safetensors header of at most 1024 KiB"):
        distilled.header(path)


def test_every_cut_of_a_file_is_refused(tmp_path):
    distilled.save(a_set(), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in [*range(0, 16), *range(16, len(whole), 97), len(whole) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(DataError):
            distilled.load(tmp_path / "cut.safetensors")


def test_what_is_no_plain_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: is not a plain file"):
        distilled.load(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a folder"):
        distilled.header(tmp_path)
    with pytest.raises(DataError, match="absent: no such file"):
        distilled.digest(tmp_path / "absent")


def test_a_set_that_fits_the_real_data_passes():
    distilled.check_against(a_set(), real_data(), 2, "file")
    distilled.check_against(a_set(labels=torch.tensor([0, 1, 2, 2, 2, 2])), real_data(), None, "file")


@pytest.mark.parametrize(
    ("changes", "real", "ipc", "expected"),
    [
        (
            {"images": torch.zeros(6, 1, 4, 5)},
            {},
            None,
            "images: 1 channels, but the data set's have 3",
        ),
        ({"images": torch.zeros(6, 3, 5, 4)}, {}, None, "images: 5x4 pixels, but the data set's are 4x5"),
        ({"num_classes": 4}, {}, None, "num_classes: 4, but the data set has 3"),
        ({}, {}, 1, "labels: 2 images of class 0 (cat), but the declared IPC is 1"),
        (
            {"labels": torch.tensor([0, 0, 1, 1, 1, 2])},
            {},
            2,
            "labels: 3 images of class 1 (dog), but the declared IPC is 2",
        ),
        ({"labels": torch.tensor([0, 0, 1, 1, 1, 1])}, {}, None, "labels: no image of class 2 (frog)"),
        (
            {"info": {"class_names": ["cat", "frog", "dog"]}},
            {},
            None,
            "info.class_names: class 1 is 'frog', but the data set's is 'dog'",
        ),
    ],
)
def test_a_set_that_does_not_fit_the_real_data_is_refused(changes, real, ipc, expected):
    with pytest.raises(DataError) as caught:
        distilled.check_against(a_set(**changes), real_data(**real), ipc, "some/file")
    assert str(caught.value).startswith(f"some/file: {expected}")


def test_images_already_normalised_like_the_data_set_come_back_untouched():
    images = a_set().images
    assert images is distilled.to_space(images, NORMALISED, NORMALISED.mean, NORMALISED.std)


def test_unit_images_are_normalised_per_channel():
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    actual = distilled.to_space(images, ImageSpace(kind="unit"), (0.5, 0.25, 0.5), (0.5, 0.25, 0.125))
    assert [-1.0, 1.0, 4.0] == actual.flatten().tolist()


def test_images_normalised_otherwise_are_normalised_anew():
    images = a_set().images
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    unit = images.numpy().astype(np.float64).transpose(0, 2, 3, 1) * NORMALISED.std + NORMALISED.mean
    expected = ((unit - mean) / std).transpose(0, 3, 1, 2)
    actual = distilled.to_space(images, NORMALISED, mean, std)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=2e-6)
    assert torch.float32 == actual.dtype


def test_zca_images_are_not_normalised_by_a_guess():
    with pytest.raises(DataError, match="need a run with whitening"):
        distilled.to_space(torch.zeros(1, 3, 2, 2), ImageSpace(kind="zca"), (0.5,) * 3, (0.5,) * 3)
