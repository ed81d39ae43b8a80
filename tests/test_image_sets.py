"""SVHN, TinyImageNet, ImageNet and its ten-class parts in their official layouts; tensors in a .pt file."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from ddrank_datasets import _checks
from ddrank_datasets._imagenet import wnids, words
from ddrank_datasets.arrays import Arrays
from ddrank_datasets.image_folder import ImageFolder
from ddrank_datasets.imagenet import ImageNet
from ddrank_datasets.imagenet_subsets import SUBSETS
from ddrank_datasets.svhn import SVHN
from ddrank_datasets.tiny_imagenet import TinyImageNet
from PIL import Image
from scipy.io import savemat

from ddrank_core import DataError, DatasetFacts, image_cache
from ddrank_core.registry import default_registry
from ddrank_core.spec import ParameterError
from ddrank_core.structure import Structurer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))


def fault_of(dataset) -> str:
    """Return the one line that loading the data set is refused with."""
    with pytest.raises(DataError) as caught:
        dataset.load()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(path: Path, value: int, size: int = 8) -> None:
    """Write a picture of one grey value, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # PNG content: a decoder goes by what a file holds, and the official names end in JPEG.
    Image.new("RGB", (size, size), (value,) * 3).save(path, format="PNG")


def values(images: torch.Tensor) -> list[int]:
    assert images.dtype == torch.uint8
    return images[:, 0, 0, 0].tolist()


# Facts


@pytest.mark.parametrize(
    "name",
    [e.name for e in default_registry().entries("dataset") if e.name not in ("image-folder", "arrays")],
)
def test_every_data_set_with_a_published_whole_states_its_facts_without_files(name, tmp_path):
    registry = default_registry()
    root = {} if name == "digits" else {"root": str(tmp_path)}
    chosen = Structurer(registry, tmp_path).chosen("dataset", {"use": name, **root})
    facts = chosen.component.facts()
    assert isinstance(facts, DatasetFacts)
    assert len(facts.mean) == len(facts.std) == facts.image_shape[0]
    assert all((facts.source, facts.licence, facts.statistics, facts.check, facts.class_order))
    assert facts.test_images > 0
    assert facts.class_names == () or len(facts.class_names) == facts.num_classes
    assert (facts.found is None) == (name != "digits")


# SVHN


@pytest.fixture
def svhn_root(tmp_path, monkeypatch) -> Path:
    """A train and a test file as MATLAB writes them, whose md5 are the official ones."""
    root, listed = tmp_path / "svhn", {}
    root.mkdir()
    for seed, (split, count) in enumerate({"train": 12, "test": 3}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        # The official files call the digit 0 ten.
        labels = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
        path = root / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": labels})
        listed[split] = ["file:///nowhere", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    return root


def test_svhn_puts_images_first_and_calls_the_digit_ten_zero(svhn_root):
    data = SVHN(root=svhn_root).load()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    assert (tuple(data.train_images.shape), data.train_images.dtype) == ((12, 3, 32, 32), torch.uint8)
    assert data.train_images[7, 2, 5, 30] == pixels[5, 30, 2, 7]
    assert data.train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert data.test_labels.tolist() == [1, 2, 3]
    assert data.class_names == tuple("0123456789")
    assert (data.mean, data.std) == ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def test_svhn_pins_the_md5_that_torchvision_knows_and_never_opens_another_file(svhn_root):
    (svhn_root / "test_32x32.mat").write_bytes(b"MATLAB 5.0 but not the official")
    fault = fault_of(SVHN(root=svhn_root))
    assert fault.startswith(f"{svhn_root / 'test_32x32.mat'}: is damaged or not the official file")


def test_a_missing_svhn_file_is_named_and_a_download_says_the_licence(svhn_root, caplog):
    (svhn_root / "train_32x32.mat").unlink()
    fault = fault_of(SVHN(root=svhn_root))
    assert fault.startswith(f"{svhn_root}: has no train_32x32.mat; put the files of ")
    with caplog.at_level(logging.WARNING, logger="ddrank.datasets"):
        assert "cannot be read or fetched" in fault_of(SVHN(root=svhn_root, download=True))
    assert caplog.messages == ["fetching SVHN; licence: non-commercial use only"]


# TinyImageNet


@pytest.fixture(scope="module")
def tiny_whole(tmp_path_factory) -> Path:
    """200 classes of one train and one val picture, as the official zip unpacks."""
    root = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    lines = []
    for label in range(200):
        wnid = f"n{label:08d}"
        save(root / f"train/{wnid}/images/{wnid}_0.JPEG", label)
        # In the zip, val pictures are numbered without regard to their class.
        save(root / f"val/images/val_{199 - label}.JPEG", label + 1)
        lines.append(f"val_{199 - label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    # The zip's own list is in another order than the sorted one.
    (root / "wnids.txt").write_text("".join(f"n{label:08d}\n" for label in reversed(range(200))))
    return root


@pytest.fixture
def tiny(tiny_whole, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(tiny_whole, tmp_path / "tiny-imagenet-200"))


def test_tiny_imagenet_is_numbered_by_sorted_wnid_in_both_parts(tiny_whole):
    data = TinyImageNet(root=tiny_whole.parent, size=8).load()
    assert data.class_names == tuple(f"n{label:08d}" for label in range(200))
    assert data.train_labels.tolist() == data.test_labels.tolist() == list(range(200))
    assert values(data.train_images) == list(range(200))
    assert values(data.test_images) == list(range(1, 201))
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "200 of 100000 train and 200 of 10000 val pictures" in data.source
    assert data.class_names == tuple(torchvision.datasets.ImageFolder(tiny_whole / "train").classes)


def test_tiny_imagenet_is_64_pixels_and_found_from_inside_its_folder_too(tiny_whole):
    assert TinyImageNet(root=tiny_whole).load().image_shape == (3, 64, 64)
    assert TinyImageNet(root=tiny_whole).facts().found == tiny_whole
    assert TinyImageNet(root=tiny_whole.parent).facts().found == tiny_whole


@pytest.mark.parametrize("layout", ["val/{wnid}", "val/images/{wnid}", "val/{wnid}/images"])
def test_val_pictures_sorted_into_class_folders_give_the_same_data(tiny, tiny_whole, layout):
    official = TinyImageNet(root=tiny_whole, size=8).load()
    for line in (tiny / "val/val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        target = tiny / layout.format(wnid=wnid) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (tiny / "val/images" / name).rename(target)
    if layout != "val/images/{wnid}":
        (tiny / "val/images").rmdir()
    data = TinyImageNet(root=tiny, size=8).load()
    assert (values(data.test_images), data.digest) == (values(official.test_images), official.digest)


def test_what_is_wrong_with_tiny_imagenet_is_named(tiny):
    annotations = tiny / "val/val_annotations.txt"
    whole = annotations.read_text()
    first = whole.splitlines()[0]

    annotations.write_text(whole + first + "\n")
    assert fault_of(TinyImageNet(root=tiny)).startswith(f"{annotations}:201: must be a file name that stands")
    annotations.write_text(whole + "../../../etc/passwd\tn00000000\n")
    assert "etc/passwd: no such file, though val_annotations.txt names it" in fault_of(
        TinyImageNet(root=tiny)
    )
    annotations.write_text(whole.replace(first + "\n", ""))
    assert fault_of(TinyImageNet(root=tiny)).startswith(f"{annotations}: has no class for val_199.JPEG")
    annotations.write_text(whole.replace("n00000000", "n99999999"))
    assert fault_of(TinyImageNet(root=tiny)).startswith(f"{annotations}: names the class 'n99999999'")
    annotations.write_bytes(b"\xff\xfe")
    assert fault_of(TinyImageNet(root=tiny)).startswith(f"{annotations}: cannot be read: ")

    (tiny / "train/n00000000/images/n00000000_0.JPEG").unlink()
    assert fault_of(TinyImageNet(root=tiny)).startswith(f"{tiny / 'train/n00000000'}: has no pictures")
    (tiny / "train/n00000000/images").rmdir()
    (tiny / "train/n00000000").rmdir()
    assert "has 199 class folders, and TinyImageNet has 200" in fault_of(TinyImageNet(root=tiny))
    missing = fault_of(TinyImageNet(root=tiny.parent / "none"))
    assert missing.startswith(
        f"{tiny.parent / 'none/train'}: no such folder; unpack tiny-imagenet-200.zip (http"
    )


# ImageNet and its parts


def test_the_1000_wnids_are_timms_public_ones_in_sorted_order():
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    assert list(wnids()) == info.label_names() == sorted(info.label_names())
    assert [words()[name] for name in wnids()] == info.label_descriptions()


MTT = {
    "imagenette": [
        "tench", "English springer", "cassette player", "chain saw", "church", "French horn",
        "garbage truck", "gas pump", "golf ball", "parachute",
    ],
    "imagewoof": [
        "Australian terrier", "Border terrier", "Samoyed", "beagle", "Shih-Tzu", "English foxhound",
        "Rhodesian ridgeback", "dingo", "golden retriever", "Old English sheepdog",
    ],
    "imagemeow": [
        "tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "lion", "tiger", "jaguar",
        "snow leopard", "lynx",
    ],
    "imagesquawk": [
        "peacock", "flamingo", "macaw", "pelican", "king penguin", "bald eagle", "toucan", "ostrich",
        "black swan", "sulphur-crested cockatoo",
    ],
    "imagefruit": [
        "pineapple", "banana", "strawberry", "orange", "lemon", "pomegranate", "fig", "bell pepper",
        "cucumber", "Granny Smith",
    ],
    "imageyellow": [
        "bee", "yellow lady's slipper", "banana", "lemon", "corn", "school bus", "honeycomb", "lion",
        "black and gold garden spider", "goldfinch",
    ],
}  # fmt: skip
"""What MTT's comments call the classes of its lists, in their order, in ImageNet's words."""


@pytest.mark.parametrize("name", sorted(SUBSETS))
def test_a_ten_class_part_holds_mtts_classes_in_mtts_order(name, tmp_path):
    chosen = Structurer(default_registry(), tmp_path).chosen("dataset", {"use": name})
    facts = chosen.component.facts()
    assert [words.partition(",")[0] for words in facts.class_words] == MTT[name]
    assert facts.image_shape == (3, 128, 128)


def imagenet_folder(root: Path, indices: tuple[int, ...]) -> Path:
    """Write one train and one val picture of each class, whose grey value is its place in `indices`."""
    for place, index in enumerate(indices):
        save(root / f"train/{wnids()[index]}/a.JPEG", place)
        save(root / f"val/{wnids()[index]}/b.JPEG", place + 100)
    return root


def test_labels_follow_the_list_of_classes_and_other_classes_are_left_aside(tmp_path):
    fruit = SUBSETS["imagefruit"]
    root = imagenet_folder(tmp_path, (*fruit, 0, 999))
    data = ImageNet(root=root, classes=fruit, size=8).load()
    assert data.class_names == tuple(wnids()[index] for index in fruit)
    assert values(data.train_images) == data.train_labels.tolist() == list(range(10))
    assert values(data.test_images) == list(range(100, 110))
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_whole_of_imagenet_is_numbered_by_sorted_wnid(tmp_path):
    root = imagenet_folder(tmp_path, tuple(range(1000))[:200])
    fault = fault_of(ImageNet(root=root, size=8))
    assert fault == (
        f"{root / 'train'}: has no class folder '{wnids()[200]}' (and 799 more); "
        "name the classes that are there with `classes`"
    )
    facts = ImageNet(root=root).facts()
    assert (facts.num_classes, facts.train_images, facts.test_images) == (1000, 1_281_167, 50_000)
    assert facts.class_names[:2] == ("n01440764", "n01443537")


def test_val_pictures_that_were_not_sorted_into_folders_are_said_to_be(tmp_path):
    root = imagenet_folder(tmp_path, (3,))
    (root / "val").rename(root / "elsewhere")
    save(root / "val/ILSVRC2012_val_00000001.JPEG", 0)
    assert fault_of(ImageNet(root=root, classes=(3,), size=8)).endswith(
        "sort the official val pictures into one folder per class"
    )


@pytest.mark.parametrize(
    ("classes", "problem"),
    [((), "at least one"), ((1, 1), "none of them twice"), ((1000,), "1000 is not"), ((-1,), "-1 is not")],
)
def test_a_wrong_list_of_classes_is_refused(classes, problem):
    with pytest.raises(ParameterError, match=problem):
        ImageNet(classes=classes)


def test_test_pictures_are_resized_further_where_asked_and_squashed_where_asked(tmp_path):
    from torchvision import transforms

    root = imagenet_folder(tmp_path, (0,))
    original = picture(1, 40, 30)
    for part in ("train", "val"):
        for path in (root / part / wnids()[0]).iterdir():
            original.save(path, format="PNG")

    def reference(*steps) -> list:
        return transforms.Compose([*steps, transforms.PILToTensor()])(original).tolist()

    data = ImageNet(root=root, classes=(0,), size=14, test_resize=16).load()
    assert data.train_images[0].tolist() == reference(transforms.Resize(14), transforms.CenterCrop(14))
    assert data.test_images[0].tolist() == reference(transforms.Resize(16), transforms.CenterCrop(14))
    squashed = ImageNet(root=root, classes=(0,), size=14, fit="squash").load()
    assert squashed.test_images[0].tolist() == reference(transforms.Resize((14, 14)))
    assert fault_of(ImageNet(root=root, classes=(0,), size=14, test_resize=9)) == (
        "test_resize: must be at least the size, 14, got 9"
    )


def test_an_image_folder_resizes_test_pictures_and_squashes_too(tmp_path):
    from torchvision import transforms

    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        picture(2, 33, 21).save(tmp_path / part / "a/1.png")
    data = ImageFolder(root=tmp_path, size=7, test_resize=9, mean=(0.5,) * 3, std=(0.5,) * 3).load()
    reference = transforms.Compose([transforms.Resize(9), transforms.CenterCrop(7), transforms.PILToTensor()])
    assert data.test_images[0].tolist() == reference(picture(2, 33, 21)).tolist()
    squashed = ImageFolder(root=tmp_path, size=7, fit="squash").load()
    assert squashed.train_images[0].tolist() != data.train_images[0].tolist()


# .pt files of tensors


def tensors(**changed) -> dict[str, object]:
    draw = torch.Generator().manual_seed(1)
    whole = {
        "x_train": torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8, generator=draw),
        "y_train": torch.tensor([0, 1, 2, 0, 1, 2]),
        "x_test": torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=draw),
        "y_test": torch.tensor([2, 0], dtype=torch.uint8),
        "notes": "kept aside",
    }
    return {name: value for name, value in {**whole, **changed}.items() if value is not None}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pt_file_of_tensors_is_read_like_an_npz_of_arrays(tmp_path, zipped):
    given = tensors()
    torch.save(given, tmp_path / "set.pt", _use_new_zipfile_serialization=zipped)
    data = Arrays(path=tmp_path / "set.pt").load()
    assert data.train_images.tolist() == given["x_train"].tolist()
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1, 2, 0, 1, 2], [2, 0])
    assert data.train_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (
            {"y_test": None},
            "has no tensor 'y_test'; it needs x_train, y_train, x_test, y_test, and has notes",
        ),
        ({"x_train": [1, 2]}, "x_train is not a plain tensor"),
        ({"x_train": torch.zeros(6, 3, 5, 4).to_sparse()}, "x_train is not a plain tensor"),
        (
            {"x_train": torch.zeros(6, 3, 5, 4, dtype=torch.bfloat16)},
            "x_train is torch.bfloat16, which cannot",
        ),
        ({"x_train": torch.zeros(6, 3, 5, 4, dtype=torch.int64)}, "x_train is int64; it must be uint8"),
        ({"y_train": torch.zeros(6)}, "y_train is float32; labels must be integers"),
        (
            {"x_train": torch.zeros(1, dtype=torch.uint8).expand(10**11, 3, 5, 4)},
            "x_train has 100000000000 images",
        ),
        (
            {
                "x_train": torch.zeros(1, dtype=torch.uint8).expand(10**11, 3, 5, 4),
                "y_train": torch.zeros(1, dtype=torch.int64).expand(10**11),
            },
            "the images would take ",
        ),
    ],
)
def test_wrong_tensors_are_refused_in_one_line(tmp_path, changed, fault):
    path = tmp_path / "set.pt"
    torch.save(tensors(**changed), path)
    assert fault_of(Arrays(path=path)).startswith(f"{path}: {fault}")


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["DDRANK_BOMB"],))


def test_a_pt_file_executes_nothing_and_what_is_no_pt_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "set.pt"
    monkeypatch.setenv("DDRANK_BOMB", str(tmp_path / "executed"))
    for content in (pickle.dumps(_Bomb()), b"text", b""):
        path.write_bytes(content)
        assert fault_of(Arrays(path=path)).startswith(f"{path}: is not a sound .pt file")
    torch.save({**tensors(), "more": _Bomb()}, path)
    assert fault_of(Arrays(path=path)).startswith(f"{path}: is not a sound .pt file")
    assert not (tmp_path / "executed").exists()
    torch.save(tensors(y_train=np.arange(6)), path)
    assert fault_of(Arrays(path=path)).endswith("(numpy arrays by torch.from_numpy) with torch.save")
    torch.save([1], path)
    assert fault_of(Arrays(path=path)) == f"{path}: holds list, not a dict of tensors"
    assert fault_of(Arrays(path=tmp_path / "none.pt")) == f"{tmp_path / 'none.pt'}: no such file"


def test_a_pt_file_is_refused_by_its_size_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "set.pt"
    torch.save(tensors(), path)
    monkeypatch.setattr(_checks, "MAX_BYTES", 500)
    monkeypatch.setattr(torch, "load", None)
    assert fault_of(Arrays(path=path)).startswith(f"{path}: the images would take ")


def test_statistics_from_sums_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 7, 5), dtype=np.uint8)
    wide, unit = pixels.astype(np.int64), pixels / 255
    mean, std = image_cache.statistics_of(
        wide.sum(axis=(0, 2, 3)).tolist(), (wide**2).sum(axis=(0, 2, 3)).tolist(), 50 * 35
    )
    assert mean == pytest.approx(unit.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(unit.std(axis=(0, 2, 3)), rel=1e-12)
