"""`ddrank import`: what methods publish becomes a distilled set, or one line says why not."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ddrank_core.cli.import_ import command
from ddrank_core.data import distilled, unpickle
from ddrank_core.errors import DDRankError

MNIST_DC = "distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_1ipc.pt"
MTT = "distilled/cifar10-ipc1-mtt-zca"


@pytest.fixture(scope="session")
def data() -> Path:
    folder = os.environ.get("DDRANK_TEST_DATA")
    if not folder:
        pytest.skip("DDRANK_TEST_DATA does not name the folder of real distilled sets")
    return Path(folder)


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "set.safetensors"


def run(source: Path, out: Path, *options: object) -> tuple[distilled.DistilledSet, str]:
    """Import, and return the set as it was written, with what was printed."""
    done = CliRunner().invoke(command, [str(source), str(out), *map(str, options)])
    if done.exception:
        raise done.exception
    assert [out] == list(out.parent.iterdir())
    return distilled.load(out), done.output


def refusal(source: Path, out: Path, *options: object) -> str:
    """Import what cannot be, check that nothing is left behind, and return the one line."""
    before = {path: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(DDRankError) as caught:
        run(source, out, *options)
    assert before == {path: path.read_bytes() for path in out.parent.iterdir()}
    assert 2 == caught.value.exit_code
    assert "\n" not in str(caught.value)
    return str(caught.value)


def smooth(n: int = 4, channels: int = 3, size: int = 8) -> torch.Tensor:
    """Images whose neighbouring pixels are alike, as in distilled ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, channels, size, size, generator=generator).cumsum(2).cumsum(3) / size


def saved(path: Path, value: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path, **options)
    return path


def dc_file(path: Path, images: object, labels: object, accuracies: object = None, **options: object) -> Path:
    content = {"data": [[images, labels]], "accs_all_exps": {"ConvNet": accuracies or []}}
    return saved(path, content, **options)


# Real files


def test_the_dc_set_of_mnist_comes_in_as_its_authors_saved_it(data, out):
    actual, printed = run(data / MNIST_DC, out, "--dataset", "mnist", "--info", "method=DC")
    expected = torch.load(data / MNIST_DC, weights_only=False)  # a file that we know
    assert torch.equal(expected["data"][0][0], actual.images)
    assert list(range(10)) == actual.labels.tolist()
    assert ("normalised", (0.1307,), (0.3081,)) == (actual.space.kind, actual.space.mean, actual.space.std)
    assert expected["accs_all_exps"]["ConvNet"] == actual.info["recorded_accuracies"]["ConvNet"]
    assert ("DC", "mnist", Path(MNIST_DC).name) == tuple(
        actual.info[key] for key in ("method", "dataset", "source")
    )
    assert "10 images 1x28x28, 10 classes, IPC 1, normalised space" in printed
    assert "recorded accuracy 92.01 ± 0.31 % (ConvNet, 20 trainings)" in printed


@pytest.mark.parametrize(
    ("file", "dataset", "shape", "classes", "recorded"),
    [
        (
            "cifar10-ipc10-camdm/res_CAMDM_CIFAR10_ConvNet_10ipc.pt",
            "cifar10",
            (100, 3, 32, 32),
            10,
            "47.85 ± 0.43",
        ),
        ("cifar100-ipc1-dc/DC_CIFAR100_ConvNet_1ipc.pt", "cifar100", (100, 3, 32, 32), 100, "11.69 ± "),
    ],
)
def test_published_sets_of_the_dc_family_come_in(data, out, file, dataset, shape, classes, recorded):
    actual, printed = run(data / "distilled" / file, out, "--dataset", dataset)
    assert (shape, classes) == (tuple(actual.images.shape), actual.num_classes)
    assert f"recorded accuracy {recorded}" in printed


@pytest.mark.parametrize(("file", "space"), [("images_best.pt", "zca"), ("images_zca_5000.pt", "unit")])
def test_separate_files_of_mtt_come_in_when_each_is_named(data, out, file, space):
    options = ("--space", space, "--labels", data / MTT / "labels_best.pt")
    actual, _ = run(data / MTT / file, out, *options)
    assert torch.equal(torch.load(data / MTT / file), actual.images)
    assert (space, list(range(10))) == (actual.space.kind, actual.labels.tolist())


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        (MTT, ("--space", "zca"), "images_best.pt and images_zca_5000.pt could each be meant"),
        (f"{MTT}/images_best.pt", ("--space", "zca"), "labels: the file holds only images"),
        (f"{MTT}/labels_best.pt", ("--space", "zca"), "images: shape 10, but must be [N, C, H, W]"),
        ("distilled/cifar10-ipc10-dsa-png", (), "no class folders"),
        (
            "distilled/cifar10-ipc10-dsa-png/vis_DSA_CIFAR10_ConvNet_10ipc_exp0_iter1000.png",
            (),
            "8-bit pixels are rounded and clipped",
        ),
        ("distilled/mnist-ipc1-dc", (), "give the file in it that is meant: res_DC_MNIST_ConvNet_1ipc.pt"),
        (MNIST_DC, (), "the images are normalised, and the file does not say how; give --dataset"),
        (MNIST_DC, ("--dataset", "mnits"), "--dataset mnits is not known (did you mean 'mnist'?)"),
        (MNIST_DC, ("--dataset", "cifar10"), "images: 1x28x28, but those of --dataset cifar10 are 3x32x32"),
        (MNIST_DC, ("--mean", "0.1"), "--mean and --std go together"),
        (MNIST_DC, ("--mean", "0.1,0.2", "--std", "1,1"), "space: mean has length 2, but must have 1"),
        (MNIST_DC, ("--mean", "a", "--std", "1"), "--mean a: must be numbers"),
        (MNIST_DC, ("--space", "unit", "--std", "1"), "--mean and --std only go with normalised images"),
        (MNIST_DC, ("--dataset", "mnist", "--experiment", 1), "the file holds 1, numbered from 0"),
        (MNIST_DC, ("--dataset", "mnist", "--num-classes", 9), "labels: 1 out of range: number 9 is 9"),
        (MNIST_DC, ("--dataset", "mnist", "--lr", "x.pt"), "--lr does not apply to this kind of source"),
        (MNIST_DC, ("--dataset", "mnist", "--soft-kind", "logits"), "--soft-kind: there are no soft labels"),
        (
            MNIST_DC,
            ("--dataset", "mnist", "--info", "source=me"),
            "--info source: is filled in by the import",
        ),
        (MNIST_DC, ("--dataset", "mnist", "--info", "method"), "must look like key=value"),
        ("distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_2ipc.pt", (), "no such file (did you mean"),
        ("negative/text_res_DC_CIFAR10_ConvNet_1ipc.pt", (), "shape 2x768: 768-long vectors, not images"),
        ("negative/text_res_DC_CIFAR10_ConvNet_50ipc.pt", (), "shape 100x768: 768-long vectors, not images"),
        (
            "negative/text_res_DC_FashionMNIST_ConvNet_1ipc.pt",
            (),
            "shape 2x768: 768-long vectors, not images",
        ),
        (
            "negative/res_DC_FashionMNIST_ConvNet_1ipc.pt",
            (),
            "images: noise, nothing was distilled into them",
        ),
        (
            "negative/cifar10_test_batch_TRUNCATED_3MiB",
            (),
            "not a torch file: a pickle that torch.save did not",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(data, out, source, options, expected):
    message = refusal(data / source, out, *options)
    assert expected in message
    assert source.split("/")[-1] in message or message.startswith("--")


def test_a_distilled_set_of_ours_needs_no_import(data, out, tmp_path):
    run(data / MNIST_DC, out, "--dataset", "mnist")
    assert "already is a distilled set" in refusal(out, out.with_name("again.safetensors"))


def test_the_launcher_turns_a_refusal_into_one_line_and_exit_code_2(data, out):
    command_line = [sys.executable, "-m", "ddrank_core.cli.main", "import"]
    done = subprocess.run([*command_line, str(data / MTT), str(out)], capture_output=True, text=True)
    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert done.stderr.startswith("error: ")


# Output


def test_an_existing_output_is_kept_unless_force_is_given(out, tmp_path):
    out.write_bytes(b"precious")
    source = dc_file(tmp_path / "a.pt", smooth(), torch.arange(4))
    assert "exists; give --force" in refusal(source, out, "--space", "unit")
    broken = dc_file(tmp_path / "b.pt", smooth() * float("nan"), torch.arange(4))
    assert "NaN or Inf" in refusal(broken, out, "--space", "unit", "--force")
    actual, _ = run(source, out, "--space", "unit", "--force")
    assert torch.equal(smooth(), actual.images)


def test_an_output_that_cannot_be_is_refused_before_the_source_is_read(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name, expected in (
        ("a.pt", "must end in .safetensors"),
        ("absent/a.safetensors", "no such folder"),
        ("folder.safetensors", "OUTPUT is a folder"),
    ):
        with pytest.raises(DDRankError, match=expected):
            run(tmp_path / "absent", tmp_path / name)


def test_the_command_is_defined_without_torch():
    script = "import sys, ddrank_core.cli.import_; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "set()\n" == done.stdout


# What methods save, made here


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_recorded_numpy_accuracies_of_any_numpy_are_read(out, tmp_path, zipped):
    accuracies = [np.float64(0.75), np.float32(0.25), 0.5]
    source = dc_file(
        tmp_path / "a.pt", smooth(), torch.arange(4), accuracies, _use_new_zipfile_serialization=zipped
    )
    actual, _ = run(source, out, "--space", "unit")
    assert {"ConvNet": [0.75, 0.25, 0.5]} == actual.info["recorded_accuracies"]


def test_the_first_experiment_is_taken_and_their_number_told(out, tmp_path):
    pairs = [[smooth() + index, torch.arange(4)] for index in range(3)]
    source = saved(tmp_path / "a.pt", {"data": pairs})
    actual, printed = run(source, out, "--space", "unit")
    assert torch.equal(pairs[0][0], actual.images)
    assert "experiment 0 of 3" in printed
    actual, printed = run(source, out, "--space", "unit", "--experiment", 2, "--force")
    assert torch.equal(pairs[2][0], actual.images)
    assert {"index": 2, "of": 3} == actual.info["experiment"]


def test_a_trained_parameter_in_double_precision_becomes_plain_float32(out, tmp_path):
    images = torch.nn.Parameter(smooth().double())
    actual, _ = run(dc_file(tmp_path / "a.pt", images, torch.arange(4.0)), out, "--space", "unit")
    assert torch.equal(smooth(), actual.images)
    assert (False, torch.int64) == (actual.images.requires_grad, actual.labels.dtype)


def test_8_bit_images_become_unit_images(out, tmp_path):
    images = (torch.arange(4 * 3 * 8 * 8) % 256).to(torch.uint8).view(4, 3, 8, 8)
    actual, _ = run(dc_file(tmp_path / "a.pt", images, torch.arange(4)), out)
    assert "unit" == actual.space.kind
    assert torch.equal(images.float() / 255, actual.images)


def test_labels_are_taken_in_the_order_they_are_in(out, tmp_path):
    actual, printed = run(
        dc_file(tmp_path / "a.pt", smooth(), torch.tensor([3, 0, 3, 1])), out, "--space", "unit"
    )
    assert ([3, 0, 3, 1], 4) == (actual.labels.tolist(), actual.num_classes)
    assert "0 to 2 images per class" in printed


def test_a_folder_of_separate_files_brings_labels_soft_labels_and_rate(out, tmp_path):
    folder = tmp_path / "mtt"
    saved(folder / "images_best.pt", smooth())
    saved(folder / "labels_best.pt", torch.tensor([0, 1, 2, 0]))
    saved(folder / "soft_labels.pt", torch.randn(4, 3))
    saved(folder / "lr_best.pt", torch.tensor(0.0123, requires_grad=True))
    actual, printed = run(folder, out, "--space", "normalised", "--mean", "0,0,0", "--std", "1,1,2")
    assert ("logits", [0, 1, 2, 0]) == (actual.soft_kind, actual.labels.tolist())
    assert 0.0123 == pytest.approx(actual.learning_rate)
    assert (1.0, 1.0, 2.0) == actual.space.std
    assert "learning rate 0.0123" in printed
    assert {"images_best.pt", "labels_best.pt", "soft_labels.pt", "lr_best.pt"} == set(
        actual.info["source_sha256"]
    )


def test_soft_labels_in_the_labels_file_give_the_hard_ones(out, tmp_path):
    soft = torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    saved(tmp_path / "a" / "images.pt", smooth())
    saved(tmp_path / "a" / "labels.pt", soft)
    actual, _ = run(tmp_path / "a", out, "--space", "unit")
    assert ("probabilities", 2, [1, 0, 0, 1]) == (
        actual.soft_kind,
        actual.num_classes,
        actual.labels.tolist(),
    )
    assert torch.equal(soft, actual.soft_labels)
    actual, _ = run(tmp_path / "a", out, "--space", "unit", "--soft-kind", "logits", "--force")
    assert "logits" == actual.soft_kind


def test_noise_is_refused_whatever_its_number_and_distilled_images_are_not(out, tmp_path):
    for n, size in ((1, 16), (10, 28), (50, 32)):
        noise = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))
        source = dc_file(tmp_path / "a.pt", noise, torch.zeros(n))
        assert "noise" in refusal(source, out, "--space", "unit")
    # Along one direction only: stripes are images.
    stripes = torch.randn(4, 3, 8, 1, generator=torch.Generator().manual_seed(0)).expand(4, 3, 8, 8)
    run(dc_file(tmp_path / "a.pt", stripes.clone(), torch.arange(4)), out, "--space", "unit")


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (smooth() * 255, torch.arange(4), "images: values up to"),
        (smooth().permute(0, 2, 3, 1), torch.arange(4), "channels are last; save them as [N, C, H, W]"),
        (smooth().long(), torch.arange(4), "images: torch.int64, but must be a float type or uint8"),
        (smooth()[:0], torch.arange(0), "images: shape 0x3x8x8, but must be [N, C, H, W]"),
        ([1.0, 2.0], torch.arange(4), "images: list, but must be a dense tensor"),
        (smooth(), torch.arange(3), "labels: 3 for 4 images"),
        (smooth(), torch.tensor([0, 1, 2, -1]), "labels: 1 out of range: number 3 is -1"),
        (smooth(), torch.tensor([0.0, 1.5, 2.0, 0.0]), "with values that are not whole numbers"),
        (smooth(), torch.zeros(4, 2).long(), "labels: torch.int64 of shape 4x2, but must be whole numbers"),
        (smooth(), torch.zeros(0), "labels: torch.float32 of shape 0, but must be whole numbers"),
        (smooth(), torch.full((4, 5), float("nan")), "soft_labels: NaN or Inf"),
        (smooth().to_sparse(), torch.arange(4), "images: Tensor, but must be a dense tensor"),
        (smooth()[:, :2], torch.arange(4), "images: 2 channels, but must be 1 (grey) or 3 (colour)"),
    ],
)
def test_tensors_that_are_no_distilled_set_are_refused(out, tmp_path, images, labels, expected):
    source = dc_file(tmp_path / "a.pt", images, labels)
    message = refusal(source, out, "--space", "unit")
    assert expected in message
    assert message.startswith(f"{source}: data[0]: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"state_dict": 1, "epoch": 2}, "data: missing; the file holds state_dict, epoch"),
        ({"data": []}, "data: missing"),
        ({"data": [smooth()]}, "data[0]: must be a pair of images and labels"),
        (["a"], "images: list, but must be a dense tensor"),
    ],
)
def test_torch_files_of_another_shape_are_refused(out, tmp_path, content, expected):
    assert expected in refusal(saved(tmp_path / "a.pt", content), out, "--space", "unit")


def test_a_rate_that_is_none_is_refused(out, tmp_path):
    saved(tmp_path / "a" / "images.pt", smooth())
    saved(tmp_path / "a" / "labels.pt", torch.arange(4))
    rate = saved(tmp_path / "a" / "lr.pt", torch.tensor([0.1, 0.2]))
    assert "lr.pt: learning_rate: must hold one number" in refusal(tmp_path / "a", out, "--space", "unit")
    saved(rate, -0.1)
    assert "learning_rate: -0.1, but must be finite and above 0" in refusal(
        tmp_path / "a", out, "--space", "unit"
    )


# Pictures


def picture(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def gradient(value: int, *shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) + value).astype(np.uint8)


def test_class_folders_come_in_numeric_order_as_unit_images(out, tmp_path):
    folder = tmp_path / "set"
    for name in ("10", "9", "2"):
        picture(folder / name / "a.png", gradient(int(name), 4, 5, 3))
    actual, printed = run(folder, out)
    assert ([0, 1, 2], ["2", "9", "10"]) == (actual.labels.tolist(), actual.info["class_names"])
    expected = gradient(9, 4, 5, 3).transpose(2, 0, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(expected, actual.images[1].numpy())
    assert "3 images 3x4x5, 3 classes, IPC 1, unit space" in printed


def test_class_folders_with_names_come_in_the_order_of_their_names(out, tmp_path):
    for name in ("dog", "cat", "10"):
        picture(tmp_path / "set" / name / "a.bmp", gradient(0, 4, 5))
    actual, _ = run(tmp_path / "set", out)
    assert ["10", "cat", "dog"] == actual.info["class_names"]
    assert (3, 1, 4, 5) == tuple(actual.images.shape)


def test_grey_pictures_among_coloured_ones_become_colour(out, tmp_path):
    picture(tmp_path / "set" / "0" / "a.png", gradient(0, 4, 5))
    picture(tmp_path / "set" / "1" / "a.png", gradient(0, 4, 5, 3))
    actual, _ = run(tmp_path / "set", out)
    for channel in range(3):
        np.testing.assert_array_equal(gradient(0, 4, 5).astype(np.float32) / 255, actual.images[0, channel])


def two_classes(folder: Path) -> Path:
    for name in ("0", "1"):
        picture(folder / name / "a.png", gradient(0, 8, 8, 3))
    return folder


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        tail = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + tail

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda f: (f / "1" / "b.png").write_bytes(png_that_claims(30_000, 30_000)),
            "b.png: too many pixels",
        ),
        (
            lambda f: (f / "1" / "b.png").write_bytes(png_that_claims(5_000, 5_000)),
            "5000x5000 pixels, too large",
        ),
        (lambda f: (f / "1" / "b.png").write_bytes(b"GIF89a"), "b.png: damaged, or not a picture"),
        (
            lambda f: (f / "1" / "b.png").write_bytes((f / "1" / "a.png").read_bytes()[:-20]),
            "b.png: damaged, or not a picture",
        ),
        (lambda f: picture(f / "1" / "b.png", gradient(0, 8, 9, 3)), "b.png: 8x9 pixels, but a.png has 8x8"),
        (lambda f: picture(f / "1" / "b.png", np.zeros((8, 8), np.uint16)), "must be 8-bit grey or colour"),
        (lambda f: (f / "1" / "notes.txt").write_text("hello"), "notes.txt: damaged, or not a picture"),
        (lambda f: (f / "1" / "b").mkdir(), "b: not a file; a class folder may hold pictures only"),
        (lambda f: (f / "2").mkdir(), "2: no pictures"),
        (lambda f: picture(f / "grid.png", gradient(0, 8, 8)), "grid.png: lies beside the class folders"),
        (lambda f: (f / "1" / "b.png").symlink_to("/etc/hostname"), "b.png: a link that leads out of"),
        (lambda f: (f / "2").symlink_to("/etc"), "2: a link that leads out of"),
        (lambda f: (f / "1" / "b.png").symlink_to("b.png"), "b.png: not a file"),
        (lambda f: os.mkfifo(f / "1" / "b.png"), "b.png: not a file"),
    ],
)
def test_folders_that_hold_anything_else_are_refused(out, tmp_path, spoil, expected):
    folder = two_classes(tmp_path / "set")
    spoil(folder)
    assert expected in refusal(folder, out)


def test_a_missing_class_folder_is_not_closed_up_silently(out, tmp_path):
    folder = two_classes(tmp_path / "set")
    assert "2 class folders for 3 classes" in refusal(folder, out, "--num-classes", 3)


# Hostile files


class RunsACommand:
    """What a hostile pickle does: whoever loads it runs its command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def write_zip(path: Path, hostile: object) -> None:
    torch.save({"data": hostile}, path)


def write_legacy(path: Path, hostile: object) -> None:
    torch.save({"data": hostile}, path, _use_new_zipfile_serialization=False)


def write_newer_protocol(path: Path, hostile: object) -> None:
    torch.save({"data": hostile}, path, pickle_protocol=4)


def write_plain_pickle(path: Path, hostile: object) -> None:
    path.write_bytes(pickle.dumps(hostile))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_newer_protocol, write_plain_pickle])
def test_code_in_a_pickle_is_named_and_never_run(out, tmp_path, write):
    write(tmp_path / "a.pt", RunsACommand(tmp_path / "marker"))
    assert f"a.pt: holds code ({os.system.__module__}.system), refused" in refusal(tmp_path / "a.pt", out)
    assert not (tmp_path / "marker").exists()


def test_objects_that_are_no_tensors_are_refused_by_name(out, tmp_path):
    source = saved(tmp_path / "a.pt", {"data": [], "args": Namespace(lr=1)})
    assert "holds code (argparse.Namespace), refused" in refusal(source, out)
    source = saved(tmp_path / "b.pt", {"data": np.zeros(3)})
    assert "holds more than tensors and plain values (numpy" in refusal(source, out)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_cut_of_a_torch_file_is_refused_in_one_line(out, tmp_path, zipped):
    whole = dc_file(
        tmp_path / "whole.pt", smooth(), torch.arange(4), [0.5], _use_new_zipfile_serialization=zipped
    ).read_bytes()
    for length in (0, 1, 2, 10, 40, 200, 500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.pt").write_bytes(whole[:length])
        message = refusal(tmp_path / "a.pt", out)
        assert any(words in message for words in ("cut off", "empty file", "not a torch file")), message


def test_a_zip_that_unpacks_to_more_than_it_holds_is_refused(out, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert "not a torch file (a compressed zip file)" in refusal(tmp_path / "a.pt", out)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "not a torch file (a zip file without data.pkl)" in refusal(tmp_path / "b.pt", out)


def test_a_tensor_that_repeats_few_bytes_to_claim_many_values_is_refused(out, tmp_path):
    images = torch.zeros(1).expand(100_000, 3, 32, 32)
    source = dc_file(tmp_path / "a.pt", images, torch.zeros(100_000))
    assert "images: 307200000 values, more than the file can hold" in refusal(source, out, "--space", "unit")


def test_files_that_are_too_large_or_no_files_are_refused(out, tmp_path):
    with (tmp_path / "a.pt").open("wb") as file:
        file.truncate(unpickle.MAX_FILE_BYTES + 1)  # sparse: takes no room
    assert "larger than 8 GiB" in refusal(tmp_path / "a.pt", out)
    (tmp_path / "b.pt").write_text("hello")
    assert "not a torch file" in refusal(tmp_path / "b.pt", out)
    os.mkfifo(tmp_path / "pipe.pt")
    assert "not a plain file" in refusal(tmp_path / "pipe.pt", out)


def test_reading_leaves_no_allowance_behind_in_torch(out, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    run(dc_file(tmp_path / "a.pt", smooth(), torch.arange(4), [np.float64(0.5)]), out, "--space", "unit")
    assert before == set(torch.serialization.get_safe_globals())
