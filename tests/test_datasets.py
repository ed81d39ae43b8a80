"""The first-party data sets: what they read, and the one line that each bad file gets."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import attrs
import numpy as np
import pytest
import torch
import torchvision
from ddrank_datasets import _checks, _mnist_family, fashion_mnist, mnist
from ddrank_datasets._checks import pixel_statistics
from ddrank_datasets._idx import read_idx
from ddrank_datasets.arrays import Arrays
from ddrank_datasets.cifar10 import CIFAR10
from ddrank_datasets.cifar100 import CIFAR100
from ddrank_datasets.digits import Digits
from ddrank_datasets.fashion_mnist import FashionMNIST
from ddrank_datasets.image_folder import ImageFolder
from ddrank_datasets.mnist import MNIST
from PIL import Image

from ddrank_core import DataError, image_cache
from ddrank_core.registry import default_registry
from ddrank_core.spec import parameters_of

TEST_DATA = os.environ.get("DDRANK_TEST_DATA")
needs_test_data = pytest.mark.skipif(TEST_DATA is None, reason="DDRANK_TEST_DATA is not set")

NAMES = (
    "digits",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "svhn",
    "tiny-imagenet",
    "imagenet",
    "imagenette",
    "imagewoof",
    "imagefruit",
    "imageyellow",
    "imagemeow",
    "imagesquawk",
    "image-folder",
    "arrays",
)


def fault_of(dataset) -> str:
    """Return the one line that loading the data set is refused with."""
    with pytest.raises(DataError) as caught:
        dataset.load()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# The plugin


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_found_by_its_name_and_documents_its_parameters(name):
    cls = default_registry().load("dataset", name)
    assert cls.__doc__.strip()
    assert [f.name for f in parameters_of(cls) if not f.metadata["doc"]] == []


def test_describing_the_data_sets_imports_nothing_heavy():
    script = (
        "import sys, pkgutil, importlib, attrs, ddrank_datasets\n"
        "for found in pkgutil.iter_modules(ddrank_datasets.__path__):\n"
        "    module = importlib.import_module('ddrank_datasets.' + found.name)\n"
        "    for cls in vars(module).values():\n"
        "        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == module.__name__:\n"
        "            if hasattr(cls, 'load'): attrs.resolve_types(cls)\n"
        "heavy = {'torch', 'numpy', 'torchvision', 'PIL', 'sklearn', 'scipy', 'kornia', 'timm'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Statistics and shared checks


def test_pixel_statistics_are_those_of_numpy_in_the_unit_range():
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3, 2, 2), dtype=np.uint8)
    unit = pixels.astype(np.float64) / 255
    for images in (torch.from_numpy(pixels), torch.from_numpy(unit.astype(np.float32))):
        mean, std = pixel_statistics(images)
        assert mean == pytest.approx(unit.mean(axis=(0, 2, 3)), abs=1e-6)
        assert std == pytest.approx(unit.std(axis=(0, 2, 3)), abs=1e-6)


# digits


def test_digits_are_scikit_learns_in_file_order_and_unit_range():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = Digits().load()
    assert data.image_shape == (1, 8, 8)
    assert data.train_images.dtype == torch.float32
    together = torch.cat([data.train_images, data.test_images]).squeeze(1).numpy()
    assert (together * 16 == bunch.images).all()
    assert torch.cat([data.train_labels, data.test_labels]).tolist() == bunch.target.tolist()
    assert (len(data.train_images), len(data.test_images)) == (1437, 360)
    assert (together.min(), together.max()) == (0.0, 1.0)
    assert data.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def test_digits_statistics_are_those_of_the_train_images():
    data = Digits().load()
    pixels = data.train_images.double().numpy()
    assert data.mean == (round(float(pixels.mean()), 4),)
    assert data.std == (round(float(pixels.std()), 4),)


def test_digits_train_and_test_images_share_no_memory():
    data = Digits().load()
    assert data.train_images.untyped_storage().data_ptr() != data.test_images.untyped_storage().data_ptr()


# IDX files


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_idx_file_is_read_whatever_its_name_says_about_packing(tmp_path, pack):
    for name in ("file", "file.gz"):
        (tmp_path / name).write_bytes(pack(idx(VALUES)))
        read = read_idx(tmp_path / name, (2, 3, 4), sha256(idx(VALUES)))
        assert read.dtype == torch.uint8
        assert read.tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not an IDX file of bytes in 3 dimensions: it starts with nothing"),
        (b"<html>404</html>", "is not an IDX file"),
        (idx(VALUES.ravel()), "is not an IDX file of bytes in 3 dimensions: it starts with 00000801"),
        (idx(VALUES.reshape(3, 2, 4)), "holds 3x2x4 values, and 2x3x4 are expected"),
        (idx(VALUES)[:9], "is cut off after 9 of 40 bytes"),
        (idx(VALUES)[:-1], "is cut off after 39 of 40 bytes"),
        (idx(VALUES) + b"\0", "has more than 40 bytes"),
        (idx(VALUES[::-1].copy()), "is not the official file (its unpacked sha256 differs)"),
        (gzip.compress(idx(VALUES))[:-9], "its gzip stream is cut off"),
        (gzip.compress(idx(VALUES))[:-8] + bytes(8), "its gzip stream is damaged"),
        (b"\x1f\x8b" + bytes(40), "its gzip stream is damaged"),
        (gzip.compress(idx(VALUES)) + b"trailing", "its gzip stream is damaged"),
    ],
)
def test_a_wrong_idx_file_is_refused_in_one_line_that_names_it(tmp_path, content, fault):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path, (2, 3, 4), sha256(idx(VALUES)))
    assert str(caught.value).startswith(f"{path}: {fault}")
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked_beyond_the_expected_size(tmp_path):
    import tracemalloc

    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(VALUES) + bytes(40_000_000), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="has more than 40 bytes"):
        read_idx(path, (2, 3, 4), sha256(idx(VALUES)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


# MNIST and Fashion-MNIST


def tiny_family(monkeypatch, module, train=12, test=11) -> dict[str, bytes]:
    """Make a data set of that many 4x4 images the official one, and return its files."""
    draw = np.random.default_rng(1)
    labels = np.arange(max(train, test), dtype=np.uint8) % 10
    files = {
        _mnist_family.TRAIN_IMAGES: idx(draw.integers(0, 256, (train, 4, 4), dtype=np.uint8)),
        _mnist_family.TRAIN_LABELS: idx(labels[:train]),
        _mnist_family.TEST_IMAGES: idx(draw.integers(0, 256, (test, 4, 4), dtype=np.uint8)),
        _mnist_family.TEST_LABELS: idx(labels[:test]),
    }
    digests = {name: sha256(content) for name, content in files.items()}
    family = attrs.evolve(module.FAMILY, train=train, test=test, side=4, digests=digests)
    monkeypatch.setattr(module, "FAMILY", family)
    return files


def write(folder: Path, files: dict[str, bytes], packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)


@needs_test_data
def test_mnist_is_the_official_one():
    data = MNIST(root=Path(TEST_DATA) / "real/mnist").load()
    assert (tuple(data.train_images.shape), data.train_images.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert (tuple(data.test_images.shape), data.test_images.dtype) == ((10_000, 1, 28, 28), torch.uint8)
    # The first train digits, as they stand on the data set's page and in every tutorial.
    assert data.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.train_labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert data.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    counts = np.bincount(data.train_images.flatten().numpy(), minlength=256)
    values = np.arange(256) / 255
    mean = (counts * values).sum() / counts.sum()
    deviation = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
    assert data.mean == pytest.approx((mean,), abs=1e-4)
    assert data.std == pytest.approx((deviation,), abs=1e-4)


@needs_test_data
def test_the_gz_files_that_torchvision_knows_have_the_pinned_content():
    folder = Path(TEST_DATA) / "real/mnist"
    known = dict(torchvision.datasets.MNIST.resources)
    original = []
    for name, digest in mnist.FAMILY.digests.items():
        content = (folder / f"{name}.gz").read_bytes()
        if hashlib.md5(content).hexdigest() == known[f"{name}.gz"]:
            original.append(name)
            assert sha256(gzip.decompress(content)) == digest
    assert set(original) >= {_mnist_family.TEST_IMAGES, _mnist_family.TEST_LABELS}


@needs_test_data
def test_mnist_files_are_not_taken_for_fashion_mnist():
    fault = fault_of(FashionMNIST(root=Path(TEST_DATA) / "real/mnist"))
    assert "train-images-idx3-ubyte.gz: is not the official file" in fault


@pytest.mark.parametrize(
    ("module", "cls", "folder"),
    [
        (mnist, MNIST, "."),
        (mnist, MNIST, "raw"),
        (mnist, MNIST, "MNIST/raw"),
        (fashion_mnist, FashionMNIST, "FashionMNIST/raw"),
    ],
)
def test_the_four_files_are_found_in_the_usual_folders(tmp_path, monkeypatch, module, cls, folder):
    files = tiny_family(monkeypatch, module)
    write(tmp_path / folder, files, packed=folder == "raw")
    data = cls(root=tmp_path).load()
    images = np.frombuffer(files[_mnist_family.TRAIN_IMAGES], np.uint8, offset=16)
    assert data.train_images.shape == (12, 1, 4, 4)
    assert data.train_images.flatten().tolist() == images.tolist()
    assert data.test_labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_the_folder_of_the_data_set_wins_over_files_of_another_beside_it(tmp_path, monkeypatch):
    files = tiny_family(monkeypatch, fashion_mnist)
    write(tmp_path / "FashionMNIST/raw", files)
    write(tmp_path, dict.fromkeys(files, b"another data set"))
    assert len(FashionMNIST(root=tmp_path).load().train_images) == 12


def test_fashion_mnist_has_the_real_class_names_and_the_fields_statistics(tmp_path, monkeypatch):
    write(tmp_path, tiny_family(monkeypatch, fashion_mnist))
    data = FashionMNIST(root=tmp_path).load()
    assert list(data.class_names) == torchvision.datasets.FashionMNIST.classes
    assert (data.mean, data.std) == ((0.2861,), (0.3530,))


def test_missing_mnist_files_say_where_to_put_them_and_how_to_fetch_them(tmp_path, monkeypatch):
    fault = fault_of(MNIST(root=tmp_path / "none"))
    assert fault.startswith(f"{tmp_path / 'none'}: no MNIST here (looked in ")
    assert str(tmp_path / "none/MNIST/raw") in fault
    assert "--set dataset.download=true" in fault

    files = tiny_family(monkeypatch, mnist)
    del files[_mnist_family.TEST_LABELS]
    write(tmp_path / "raw", files)
    assert fault_of(MNIST(root=tmp_path)).startswith(
        f"{tmp_path / 'raw'}: t10k-labels-idx1-ubyte of MNIST is missing"
    )


def test_a_label_that_no_class_has_is_refused(tmp_path, monkeypatch):
    files = tiny_family(monkeypatch, mnist)
    files[_mnist_family.TEST_LABELS] = idx(np.full(11, 10, dtype=np.uint8))
    digests = {name: sha256(content) for name, content in files.items()}
    monkeypatch.setattr(mnist, "FAMILY", attrs.evolve(mnist.FAMILY, digests=digests))
    write(tmp_path, files)
    assert fault_of(MNIST(root=tmp_path)) == (
        f"{tmp_path}: test: label 10 is out of range, there are 10 classes (0..9)"
    )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine while the block runs."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_download_fetches_the_files_with_torchvision_and_only_once(tmp_path, monkeypatch):
    files = tiny_family(monkeypatch, mnist)
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    write(mirror, files, packed=True)
    resources = [
        (f"{name}.gz", hashlib.md5((mirror / f"{name}.gz").read_bytes()).hexdigest()) for name in files
    ]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    with served(mirror) as address:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        assert len(MNIST(root=root, download=True).load().train_images) == 12
    assert sorted(p.name for p in (root / "MNIST/raw").iterdir() if p.suffix != ".gz") == sorted(files)

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["file:///nowhere/"])
    assert len(MNIST(root=root, download=True).load().train_images) == 12


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{(tmp_path / 'none').as_uri()}/"])
    fault = fault_of(MNIST(root=tmp_path / "root", download=True))
    assert fault.startswith(
        f"{tmp_path / 'root'}: MNIST could not be fetched: RuntimeError: Error downloading"
    )


# CIFAR


def cifar_entry(seed: int, names: dict[str, list[int]]) -> bytes:
    count = len(next(iter(names.values())))
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return pickle.dumps({"data": data, **names}, protocol=2)


def fake_cifar(monkeypatch, root: Path, reader, entries: dict[str, bytes]) -> Path:
    """Write the files into the folder that torchvision reads, and make their md5 the official ones."""
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    for name, content in entries.items():
        (folder / name).write_bytes(content)

    def pinned(listed):
        return [[name, hashlib.md5(entries[name]).hexdigest()] for name, _ in listed]

    monkeypatch.setattr(reader, "train_list", pinned(reader.train_list))
    monkeypatch.setattr(reader, "test_list", pinned(reader.test_list))
    meta = {**reader.meta, "md5": hashlib.md5(entries[reader.meta["filename"]]).hexdigest()}
    monkeypatch.setattr(reader, "meta", meta)
    return folder


CIFAR10_NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
]  # fmt: skip


@pytest.fixture
def cifar10_folder(tmp_path, monkeypatch):
    entries = {f"data_batch_{i}": cifar_entry(i, {"labels": [2 * i - 2, 2 * i - 1, 0]}) for i in range(1, 6)}
    entries["test_batch"] = cifar_entry(9, {"labels": [9, 8]})
    entries["batches.meta"] = pickle.dumps({"label_names": CIFAR10_NAMES}, protocol=2)
    return fake_cifar(monkeypatch, tmp_path, torchvision.datasets.CIFAR10, entries)


def test_cifar10_joins_the_batches_and_puts_channels_first(cifar10_folder):
    data = CIFAR10(root=cifar10_folder.parent).load()
    batches = [pickle.loads((cifar10_folder / f"data_batch_{i}").read_bytes())["data"] for i in range(1, 6)]
    assert (tuple(data.train_images.shape), data.train_images.dtype) == ((15, 3, 32, 32), torch.uint8)
    # A row of the official format is 1024 red values, then green, then blue, row by row.
    assert data.train_images.flatten(1).tolist() == np.concatenate(batches).tolist()
    assert data.train_labels.tolist() == [0, 1, 0, 2, 3, 0, 4, 5, 0, 6, 7, 0, 8, 9, 0]
    assert data.test_labels.tolist() == [9, 8]
    assert data.class_names == tuple(CIFAR10_NAMES)
    assert (data.mean, data.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_cifar100_reads_the_fine_labels(tmp_path, monkeypatch):
    names = [f"class {i}" for i in range(100)]
    entries = {
        "train": cifar_entry(1, {"fine_labels": list(range(100)), "coarse_labels": [0] * 100}),
        "test": cifar_entry(2, {"fine_labels": [99, 98], "coarse_labels": [0, 0]}),
        "meta": pickle.dumps({"fine_label_names": names, "coarse_label_names": ["all"]}, protocol=2),
    }
    fake_cifar(monkeypatch, tmp_path, torchvision.datasets.CIFAR100, entries)
    data = CIFAR100(root=tmp_path).load()
    assert data.train_labels.tolist() == list(range(100))
    assert data.test_labels.tolist() == [99, 98]
    assert data.class_names == tuple(names)
    assert (data.mean, data.std) == ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


def test_a_missing_cifar_folder_or_file_says_what_to_put_where(cifar10_folder):
    root = cifar10_folder.parent
    (cifar10_folder / "data_batch_3").unlink()
    assert fault_of(CIFAR10(root=root)).startswith(f"{cifar10_folder}: data_batch_3 missing from it; unpack ")
    fault = fault_of(CIFAR10(root=root / "elsewhere"))
    assert fault.startswith(
        f"{root / 'elsewhere/cifar-10-batches-py'}: no such folder; unpack cifar-10-python.tar.gz"
    )
    assert "--set dataset.download=true" in fault


def test_download_fetches_and_unpacks_the_cifar_archive(cifar10_folder, tmp_path, monkeypatch):
    reader = torchvision.datasets.CIFAR10
    archive = tmp_path / "mirror" / reader.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar10_folder, cifar10_folder.name)
    monkeypatch.setattr(reader, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with served(archive.parent) as address:
        monkeypatch.setattr(reader, "url", address + reader.filename)
        data = CIFAR10(root=tmp_path / "new", download=True).load()
    assert len(data.train_images) == 15


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["DDRANK_BOMB"],))


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_damaged_cifar_file_is_named_and_never_unpickled(cifar10_folder, monkeypatch, tmp_path, name):
    monkeypatch.setenv("DDRANK_BOMB", str(tmp_path / "executed"))
    (cifar10_folder / name).write_bytes(pickle.dumps(_Bomb()))
    fault = fault_of(CIFAR10(root=cifar10_folder.parent))
    assert fault.startswith(f"{cifar10_folder / name}: is damaged or not the official file")
    assert not (tmp_path / "executed").exists()


@needs_test_data
def test_a_cut_off_cifar_batch_is_named(cifar10_folder):
    cut = Path(TEST_DATA) / "negative/cifar10_test_batch_TRUNCATED_3MiB"
    (cifar10_folder / "test_batch").write_bytes(cut.read_bytes())
    fault = fault_of(CIFAR10(root=cifar10_folder.parent))
    assert fault.startswith(f"{cifar10_folder / 'test_batch'}: is damaged or not the official file")


# image-folder


def picture(seed: int, width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of two train pictures and one test picture each, 8x8."""
    root = tmp_path / "pictures"
    for index, path in enumerate(
        [
            "train/cat/b.png",
            "train/cat/a.png",
            "train/ant/1.png",
            "train/ant/2.png",
            "test/cat/x.png",
            "test/ant/y.png",
        ]
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture(index, 8, 8).save(root / path)
    return root


def test_image_folder_numbers_classes_and_pictures_by_sorted_name(folder):
    data = ImageFolder(root=folder, size=8).load()
    assert data.class_names == ("ant", "cat")
    assert data.train_labels.tolist() == [0, 0, 1, 1]
    assert data.test_labels.tolist() == [0, 1]
    # fixture's seeds: ant/1, ant/2, cat/a, cat/b
    expected = [np.asarray(picture(seed, 8, 8)).transpose(2, 0, 1).tolist() for seed in (2, 3, 1, 0)]
    assert data.train_images.dtype == torch.uint8
    assert data.train_images.tolist() == expected


def test_image_folder_takes_val_where_there_is_no_test(folder):
    (folder / "test").rename(folder / "val")
    assert len(ImageFolder(root=folder, size=8).load().test_images) == 2


@pytest.mark.parametrize(("width", "height"), [(31, 17), (17, 31), (40, 40), (5, 9), (8, 11)])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_resizes_and_crops_as_torchvision_does(folder, width, height, channels):
    from torchvision import transforms

    original = picture(7, width, height)
    original.save(folder / "train/ant/1.png")
    reference = transforms.Compose(
        [
            transforms.Lambda(lambda image: image.convert("L" if channels == 1 else "RGB")),
            transforms.Resize(8),
            transforms.CenterCrop(8),
            transforms.PILToTensor(),
        ]
    )
    data = ImageFolder(root=folder, size=8, channels=channels).load()
    assert data.train_images[0].tolist() == reference(original).tolist()


def test_image_folder_computes_the_statistics_of_the_train_images_unless_given(folder):
    data = ImageFolder(root=folder, size=8).load()
    unit = data.train_images.numpy().astype(np.float64) / 255
    assert data.mean == pytest.approx(unit.mean(axis=(0, 2, 3)))
    assert data.std == pytest.approx(unit.std(axis=(0, 2, 3)))
    given = ImageFolder(root=folder, size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).load()
    assert (given.mean, given.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert (
        fault_of(ImageFolder(root=folder, size=8, mean=(0.5,)))
        == f"{folder}: mean has 1 values for 3 channel(s)"
    )


def test_image_folder_leaves_hidden_and_other_files_aside_and_reads_subfolders(folder):
    (folder / "train/ant/.hidden.png").write_bytes(b"no picture")
    (folder / "train/ant/Thumbs.db").write_bytes(b"no picture")
    (folder / "train/.git").mkdir()
    (folder / "train/README.txt").write_text("words")
    (folder / "train/ant/images").mkdir()
    picture(8, 8, 8).save(folder / "train/ant/images/0.JPEG")
    data = ImageFolder(root=folder, size=8).load()
    assert data.class_names == ("ant", "cat")
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1]


def test_image_folder_reads_many_pictures_in_order(folder):
    for index in range(300):
        Image.new("L", (8, 8), index % 256).save(folder / f"train/ant/{index:04d}.png")
    data = ImageFolder(root=folder, size=8, channels=1).load()
    assert data.train_images[:300, 0, 0, 0].tolist() == [index % 256 for index in range(300)]


def test_a_class_that_only_one_part_has_is_named(folder):
    (folder / "train/bee").mkdir()
    picture(1, 8, 8).save(folder / "train/bee/1.png")
    fault = fault_of(ImageFolder(root=folder, size=8))
    assert (
        fault == f"{folder / 'test'}: has no class folder 'bee', and train/ has; both need the same classes"
    )
    (folder / "train/bee").rename(folder / "test/bee")
    fault = fault_of(ImageFolder(root=folder, size=8))
    assert (
        fault == f"{folder / 'train'}: has no class folder 'bee', and test/ has; both need the same classes"
    )


def test_missing_folders_and_empty_classes_are_named(folder, tmp_path):
    assert fault_of(ImageFolder(root=tmp_path / "none", size=8)).startswith(
        f"{tmp_path / 'none/train'}: no such folder"
    )
    (folder / "test/ant/y.png").unlink()
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{folder / 'test/ant'}: has no pictures")
    for name in ("a.png", "b.png"):
        (folder / "train/cat" / name).unlink()
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{folder / 'train/cat'}: has no pictures")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not a picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not a picture of a known format"),
        ("cut", "cannot be read as a picture: OSError: "),
        ("16 bit", "has more than 8 bits per channel (mode I;16)"),
        ("ribbon", "is 900x8, too long and narrow"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(folder, content, fault):
    path = folder / "train/cat/b.png"
    if content == "cut":
        picture(3, 64, 64).save(path)
        content = path.read_bytes()[:5000]
    elif content == "16 bit":
        Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(path)
        content = path.read_bytes()
    elif content == "ribbon":
        picture(3, 900, 8).save(path)
        content = path.read_bytes()
    path.write_bytes(content)
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{path}: {fault}")


@pytest.mark.parametrize("side", [150, 250], ids=["a warning of PIL", "an error of PIL"])
def test_a_decompression_bomb_is_refused(folder, monkeypatch, side):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    path = folder / "train/cat/b.png"
    picture(1, side, side).save(path)
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(
        f"{path}: is too large a picture: Decompression"
    )


def test_more_pictures_than_can_be_decoded_at_every_run_are_refused_before_they_are_read(folder, monkeypatch):
    (folder / "train/cat/b.png").write_bytes(b"no picture")
    monkeypatch.setattr(image_cache, "MAX_UNPREPARED_BYTES", 6 * 3 * 8 * 8 - 1)
    fault = fault_of(ImageFolder(root=folder, size=8))
    assert fault.startswith(f"{folder}: the pictures take ")
    assert "'ddrank data prepare'" in fault


def test_symbolic_links_may_stay_inside_the_root_and_not_lead_out(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    picture(1, 8, 8).save(outside / "secret.png")
    link = folder / "train/cat/c.png"
    link.symlink_to(folder / "train/ant/1.png")
    assert len(ImageFolder(root=folder, size=8).load().train_images) == 5
    link.unlink()
    link.symlink_to(outside / "secret.png")
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(
        f"{link}: leads out of the data set, to {outside}"
    )
    link.unlink()
    (folder / "train/dog").symlink_to(outside)
    (folder / "test/dog").symlink_to(outside)
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{folder / 'train/dog'}: leads out of")


def test_links_in_a_circle_and_pipes_are_refused_rather_than_followed(folder):
    path = folder / "train/cat/c.png"
    path.symlink_to(path)
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{path}: is not a file")
    path.unlink()
    os.mkfifo(path)
    assert fault_of(ImageFolder(root=folder, size=8)).startswith(f"{path}: is not a file")
    path.unlink()
    (folder / "train/cat/again").symlink_to(folder / "train/cat")
    assert "is a symbolic link to a folder" in fault_of(ImageFolder(root=folder, size=8))


def test_the_root_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(ImageFolder(root=tmp_path / "link", size=8).load().train_images) == 4


# arrays


def parts(**changed) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    whole = {
        "x_train": draw.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": draw.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8),
        "y_test": np.array([2, 0], dtype=np.uint8),
    }
    return {name: value for name, value in {**whole, **changed}.items() if value is not None}


def npz(tmp_path: Path, **changed) -> Path:
    np.savez_compressed(tmp_path / "set.npz", **parts(**changed))
    return tmp_path / "set.npz"


@needs_test_data
def test_arrays_read_the_cifar10_subset():
    path = Path(TEST_DATA) / "real/cifar10-subset/cifar10_lossless_subset.npz"
    data = Arrays(path=path, class_names=tuple(CIFAR10_NAMES)).load()
    assert (data.image_shape, data.num_classes) == ((3, 32, 32), 10)
    assert (len(data.train_images), len(data.test_images)) == (8068, 1017)
    # The first test images of CIFAR-10 are a cat, two ships, an airplane and two frogs.
    assert [data.class_names[label] for label in data.test_labels[:6].tolist()] == [
        "cat", "ship", "ship", "airplane", "frog", "frog"
    ]  # fmt: skip
    # A sixth of the official train images has nearly their mean and per-pixel deviation.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "fortran order", "big-endian labels"])
def test_arrays_of_every_layout_come_out_channels_first(tmp_path, layout):
    given = parts()
    reference = given["x_train"].transpose(0, 3, 1, 2)
    if layout == "NCHW":
        given.update({name: given[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test")})
    elif layout == "NHW":
        given.update({name: given[name][..., 0] for name in ("x_train", "x_test")})
        reference = reference[:, :1]
    elif layout == "fortran order":
        given.update({name: np.asfortranarray(given[name]) for name in ("x_train", "x_test")})
    elif layout == "big-endian labels":
        given["y_train"] = given["y_train"].astype(">i4")
    data = Arrays(path=npz(tmp_path, **given)).load()
    assert data.train_images.tolist() == reference.tolist()
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8"])
def test_arrays_of_unit_range_floats_come_out_as_float32(tmp_path, dtype):
    given = parts()
    floats = {name: (given[name] / 255).astype(dtype) for name in ("x_train", "x_test")}
    data = Arrays(path=npz(tmp_path, **floats)).load()
    assert data.train_images.dtype == torch.float32
    expected = floats["x_train"].astype(np.float32).transpose(0, 3, 1, 2)
    assert data.train_images.tolist() == expected.tolist()


ONES = np.ones((6, 5, 4, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (
            {"y_test": None},
            "has no array 'y_test'; it needs x_train, y_train, x_test, y_test, and has x_test, ",
        ),
        ({"x_train": np.zeros((6, 20), np.uint8)}, "x_train has shape [6, 20]; it must be [N,H,W], "),
        (
            {"x_train": np.zeros((6, 5, 4, 2), np.uint8)},
            "x_train of shape [6, 5, 4, 2] has no axis of 1 or 3",
        ),
        (
            {"x_train": np.zeros((6, 3, 4, 3), np.uint8)},
            "x_train of shape [6, 3, 4, 3] can be read in two ways",
        ),
        (
            {"x_train": np.zeros((6, 5, 4, 3), np.int64)},
            "x_train is int64; it must be uint8 in 0..255, or floats",
        ),
        ({"x_train": np.array([None] * 6)}, "x_train holds Python objects, which are never unpickled"),
        ({"y_train": np.zeros((6, 1), int)}, "y_train has shape [6, 1]; labels must be [N]"),
        ({"y_train": np.zeros(6)}, "y_train is float64; labels must be integers"),
        ({"y_train": np.zeros(6, bool)}, "y_train is bool; labels must be integers"),
        ({"y_train": np.array([0, 1])}, "x_train has 6 images and y_train 2 labels; there must be one each"),
        (
            {"y_train": np.array([0, 1, 2, 0, 1, -1])},
            "y_train has the label -1 among 6; labels must be 0..K-1",
        ),
        ({"y_train": np.array([0, 1, 2, 0, 1, 10**12])}, "y_train has the label 1000000000000 among 6; "),
        (
            {"y_train": np.full(6, 2**64 - 1, np.uint64)},
            "y_train has the label 18446744073709551615, which is",
        ),
        ({"y_train": np.array([0, 1, 3, 0, 1, 3])}, "class '2' has no train images"),
        ({"y_test": np.array([0, 3])}, "test: label 3 is out of range, there are 3 classes (0..2)"),
        ({"x_train": ONES * np.nan, "x_test": ONES[:2]}, "x_train has NaN or infinite values"),
        (
            {"x_train": ONES * 255, "x_test": ONES[:2]},
            "x_train has values from 255 to 255; floats must be in",
        ),
        ({"x_train": ONES}, "x_train and x_test differ in type; save both as uint8 or both as floats"),
        ({"x_train": ONES, "x_test": ONES[:2]}, "std of channel 0 is 0, and images are divided by it"),
        (
            {"x_test": np.zeros((2, 5, 5, 3), np.uint8)},
            "train images are 3x5x4 (CxHxW) and test images 3x5x5; ",
        ),
        (
            {"x_test": np.zeros((0, 5, 4, 3), np.uint8), "y_test": np.zeros(0, int)},
            "test: there are no images",
        ),
        (
            {"x_train": np.zeros((0, 5, 4, 3), np.uint8), "y_train": np.zeros(0, int)},
            "x_train or y_train is empty",
        ),
    ],
)
def test_wrong_arrays_are_refused_in_one_line_that_names_them(tmp_path, changed, fault):
    path = npz(tmp_path, **changed)
    assert fault_of(Arrays(path=path)).startswith(f"{path}: {fault}")


def test_arrays_class_names_must_be_as_many_as_the_labels_need(tmp_path):
    path = npz(tmp_path)
    assert Arrays(path=path, class_names=("ant", "bee", "cat")).load().class_names == ("ant", "bee", "cat")
    fault = fault_of(Arrays(path=path, class_names=("ant", "bee")))
    assert fault == f"{path}: train: label 2 is out of range, there are 2 classes (0..1)"
    fault = fault_of(Arrays(path=path, class_names=("ant", "bee", "ant")))
    assert fault == f"{path}: two classes have the same name; give every class its own"


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    assert fault_of(Arrays(path=path)) == f"{path}: no such file"
    path.write_bytes(b"text")
    assert fault_of(Arrays(path=path)).startswith(f"{path}: is not a sound .npz file (BadZipFile")
    whole = npz(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert fault_of(Arrays(path=path)).startswith(f"{path}: is not a sound .npz file")


def test_a_changed_byte_never_gives_anything_but_data_or_one_line(tmp_path):
    path = npz(tmp_path)
    whole = path.read_bytes()
    draw = np.random.default_rng(5)
    faults = []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(draw.integers(len(whole)))] ^= int(draw.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            Arrays(path=path).load()
        except DataError as error:
            faults.append(str(error))
    assert len(faults) > 100
    assert [fault for fault in faults if "\n" in fault] == []


def test_a_zip_bomb_is_refused_by_its_declared_size_before_it_is_unpacked(tmp_path, monkeypatch):
    path = npz(
        tmp_path, x_train=np.zeros((6, 400, 400, 3), np.uint8), x_test=np.zeros((2, 400, 400, 3), np.uint8)
    )
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(_checks, "MAX_BYTES", 3_000_000)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert fault_of(Arrays(path=path)).startswith(f"{path}: the images would take ")


def test_an_array_that_declares_more_than_its_member_holds_is_refused(tmp_path):
    import io

    path = tmp_path / "set.npz"
    huge = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000, 3)}
    np.lib.format.write_array_header_1_0(huge, header)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in parts().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", huge.getvalue() if name == "x_train" else buffer.getvalue())
    assert fault_of(Arrays(path=path)).startswith(
        f"{path}: x_train declares (1000000, 1000, 1000, 3) of uint8"
    )
