"""`ddrank data`: pictures prepared once into a memory-mapped cache, data sets listed and described."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ddrank_datasets.image_folder import ImageFolder
from PIL import Image

from ddrank_core import DataError, image_cache
from ddrank_core.cli.main import main
from ddrank_core.data.pictures import Pictures, decode_in_memory


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/images"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of two train pictures and one test picture each, 12x10."""
    root = tmp_path / "pictures"
    for seed, path in enumerate(
        ["train/a/0.png", "train/a/1.jpg", "train/b/0.png", "train/b/1.png", "test/a/0.png", "test/b/0.png"]
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / path)
    return root


@pytest.fixture
def said(capsys):
    """Give a function that runs the launcher and returns its exit code and what it said on each stream."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def prepare(folder: Path, *more: object) -> list[object]:
    return ["data", "prepare", "image-folder", "--set", f"dataset.root={folder}", "--set", "size=8", *more]


def counting(folder: Path, count: int = 300) -> Pictures:
    """Return `count` one-pixel pictures whose value is their place, decoded without a picture library."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index}").write_text(str(index % 256))

    def decode(path: Path) -> np.ndarray:
        return np.full((3, 1, 1), int(path.read_text()), dtype=np.uint8)

    names = [str(index) for index in range(count)]
    return Pictures(name="train", root=folder, files=names, shape=(3, 1, 1), recipe="digits", decode=decode)


def nothing(done: int, total: int) -> None:
    """Take no notice of progress."""


# The cache


def test_prepared_images_are_those_that_a_load_without_it_decodes(folder, said, cache):
    before = ImageFolder(root=folder, size=8).load()
    assert said(*prepare(folder))[0] == 0
    shutil.copytree(folder, folder.parent / "copy", copy_function=shutil.copy2)
    after = ImageFolder(root=folder, size=8).load()
    for name in ("train_images", "test_images", "train_labels", "test_labels"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    assert (after.mean, after.std, after.digest) == (before.mean, before.std, before.digest)
    # Each part lies in a folder of its own, and nothing else is there.
    assert sorted(p.name for p in cache.glob("*/*")) == ["images.npy", "images.npy", "meta.json", "meta.json"]


def test_a_load_takes_the_prepared_images_and_decodes_nothing(folder, said, monkeypatch):
    assert said(*prepare(folder))[0] == 0
    monkeypatch.setattr(image_cache, "MAX_UNPREPARED_BYTES", 0)
    monkeypatch.setattr(image_cache, "decode_in_memory", None)
    assert len(ImageFolder(root=folder, size=8).load().train_images) == 4


def test_writing_to_the_images_never_reaches_the_file(folder, said):
    assert said(*prepare(folder))[0] == 0
    first = ImageFolder(root=folder, size=8).load()
    original = first.train_images.clone()
    first.train_images.zero_()
    assert torch.equal(ImageFolder(root=folder, size=8).load().train_images, original)


def test_the_digest_and_the_statistics_are_those_of_the_pixels(tmp_path):
    pictures = counting(tmp_path / "set")
    pixels = np.repeat(np.arange(300) % 256, 3).astype(np.uint8).reshape(300, 3, 1, 1)
    image_cache.prepare(pictures, "counting", nothing)
    for found in (image_cache.open_prepared(pictures), decode_in_memory(pictures)):
        assert found.images.tolist() == pixels.tolist()
        assert found.digest == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert found.mean == pytest.approx((pixels / 255).mean(axis=(0, 2, 3)))
        assert found.std == pytest.approx((pixels / 255).std(axis=(0, 2, 3)))


@pytest.mark.parametrize("workers", [1, 5])
def test_progress_counts_up_to_the_end_whatever_the_number_of_threads(tmp_path, workers):
    told = []
    pictures = counting(tmp_path / "set")
    assert image_cache.prepare(pictures, "counting", lambda *done: told.append(done), workers)
    assert told == [(64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]
    assert not image_cache.prepare(pictures, "counting", nothing)


@pytest.mark.parametrize("change", ["edited", "touched", "added", "renamed", "size"])
def test_what_was_prepared_is_not_used_for_other_pictures(folder, said, monkeypatch, change):
    assert said(*prepare(folder))[0] == 0
    monkeypatch.setattr(image_cache, "MAX_UNPREPARED_BYTES", 0)
    path, size = folder / "train/a/0.png", 8
    match change:
        case "edited":
            Image.new("RGB", (12, 10)).save(path)
        case "touched":
            os.utime(path, ns=(0, 0))
        case "added":
            shutil.copy2(path, path.with_name("9.png"))
        case "renamed":
            path.rename(path.with_name("9.png"))
        case "size":
            size = 9
    with pytest.raises(DataError, match="decode them once with 'ddrank data prepare'"):
        ImageFolder(root=folder, size=size).load()


def test_what_was_prepared_goes_with_a_folder_that_is_moved(folder, said, monkeypatch):
    assert said(*prepare(folder))[0] == 0
    moved = folder.rename(folder.parent / "moved")
    monkeypatch.setattr(image_cache, "MAX_UNPREPARED_BYTES", 0)
    assert len(ImageFolder(root=moved, size=8).load().train_images) == 4


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "other shape", "other pixels", "no json", "other layout", "pickle", "sums"]
)
def test_a_damaged_cache_counts_as_none_and_is_replaced(tmp_path, cache, damage):
    pictures = counting(tmp_path / "set")
    image_cache.prepare(pictures, "counting", nothing)
    array, meta = cache / pictures.key() / "images.npy", cache / pictures.key() / "meta.json"
    match damage:
        case "cut":
            array.write_bytes(array.read_bytes()[:-1])
        case "empty":
            array.write_bytes(b"")
        case "other shape":
            np.save(array, np.zeros((299, 3, 1, 1), np.uint8))
        case "other pixels":
            whole = bytearray(array.read_bytes())
            whole[-1] ^= 1
            array.write_bytes(whole)
            # As if it had been written some time after the cache was made.
            os.utime(array, ns=(0, array.stat().st_mtime_ns + 1))
        case "pickle":
            np.save(array, np.array([None]), allow_pickle=True)
        case "no json":
            meta.write_text("{")
        case "other layout":
            meta.write_text(json.dumps({**json.loads(meta.read_text()), "layout": 99}))
        case "sums":
            meta.write_text(json.dumps({**json.loads(meta.read_text()), "sums": "many"}))
    assert image_cache.open_prepared(pictures) is None
    assert image_cache.prepare(pictures, "counting", nothing)
    assert image_cache.open_prepared(pictures).images[299, 0].item() == 299 - 256


def test_a_picture_that_cannot_be_used_leaves_nothing_behind(folder, said, cache):
    (folder / "train/b/1.png").write_bytes(b"no picture")
    code, out, err = said(*prepare(folder))
    bad = folder / "train/b/1.png"
    assert (code, out) == (2, "")
    assert err == f"error: {bad}: is not a picture of a known format; replace or remove it\n"
    assert list(cache.iterdir()) == []


def test_pictures_that_change_meanwhile_are_not_kept(tmp_path, cache):
    pictures = counting(tmp_path / "set")

    def touch(done: int, total: int) -> None:
        os.utime(tmp_path / "set/0", ns=(done, done))

    with pytest.raises(DataError, match="pictures changed while they were read; prepare again"):
        image_cache.prepare(pictures, "counting", touch)
    assert list(cache.iterdir()) == []


def test_an_interruption_leaves_nothing_and_the_next_time_starts_anew(tmp_path, cache):
    pictures = counting(tmp_path / "set")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_cache.prepare(pictures, "counting", interrupt)
    assert list(cache.iterdir()) == []
    assert image_cache.prepare(pictures, "counting", nothing)


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path, cache):
    for name in ("old.part", "new.part"):
        (cache / name).mkdir(parents=True)
        (cache / name / "images.npy").write_bytes(b"half")
    for path in (cache / "old.part/images.npy", cache / "old.part"):
        os.utime(path, (time.time() - 7200,) * 2)
    image_cache.prepare(counting(tmp_path / "set", 3), "counting", nothing)
    assert sorted(path.name for path in cache.glob("*.part")) == ["new.part"]
    assert [one.label for one in image_cache.all_prepared()] == ["counting"]


def test_a_disk_without_room_is_one_line_before_anything_is_decoded(folder, said, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    code, _, err = said(*prepare(folder))
    assert code == 2
    assert err.startswith(f"error: {cache}: 0.0 GiB are needed for the train images and 0.0 GiB are free; ")
    assert len(err.splitlines()) == 1
    assert list(cache.iterdir()) == []


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
from ddrank_core.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_write_that_fails_half_way_is_one_line_and_leaves_nothing(folder, cache):
    # A limit on the size of a file stands for a full disk: the system refuses a write in the middle.
    done = subprocess.run(
        [sys.executable, "-c", FULL, *map(str, prepare(folder))], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        f"error: {cache}: cannot be written: File too large; nothing half-written is left; "
    )
    assert "Traceback" not in done.stderr
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_is_a_file_is_one_line(folder, said, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "file"))
    code, _, err = said(*prepare(folder))
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"error: {tmp_path / 'file/images'}: cannot be written: Not a directory; ")


# The command


def test_prepare_says_what_it_did_and_does_it_once(folder, said, cache):
    code, out, err = said(*prepare(folder, "--workers", 1))
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("image-folder train: 4 images 3x8x8, 0.0 MiB, prepared in 0 s (")
    assert lines[1].startswith("image-folder test: 2 images 3x8x8, 0.0 MiB, prepared in 0 s (")
    assert lines[2] == f"in {cache}"
    assert "image-folder train: 4 of 4 images, 0 s left" in err.splitlines()
    code, out, err = said(*prepare(folder))
    assert out.splitlines()[0] == "image-folder train: 4 images 3x8x8, 0.0 MiB, was prepared already"
    assert (code, err) == (0, "")


def test_prepare_takes_the_data_set_of_a_config_and_nothing_else_of_it(folder, said, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("dataset: {use: image-folder, root: pictures, size: 7}\ndistilled: {path: none}\n")
    code, out, _ = said("data", "prepare", config, "--set", "dataset.channels=1")
    assert (code, out.splitlines()[0].split(",")[0]) == (0, "image-folder train: 4 images 1x7x7")


def test_prepare_reads_a_data_set_that_has_no_pictures(said):
    assert said("data", "prepare", "digits") == (
        0,
        "digits: sound, 1,437 train and 360 test images; it has no pictures to decode, nothing to prepare\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["prepare", "digitz"], "data set: dataset: no dataset 'digitz' (did you mean 'digits'?)"),
        (["prepare", "none.yaml"], "none.yaml: no such file"),
        (["prepare", "empty.yaml"], "empty.yaml: dataset: missing; give a config that has one"),
        (["prepare", "list.yaml"], "list.yaml: dataset: must be a name"),
        (["info", "mnist", "--set", "rot=x"], "data set: dataset.rot: unknown field (did you mean 'root'?)"),
        (
            ["info", "mnist", "--set", "recipe.epochs=3"],
            "--set recipe.epochs=3: must set a field of the data",
        ),
        (["info", "mnist", "--set", "root"], "--set root: must set a field of the data set"),
        (
            ["info", "imagenette", "--set", "classes=[1,1]"],
            "data set: dataset.classes: must hold at least one",
        ),
        (["prepare", "imagenet", "--set", "root=none"], "none/train: no such folder; imagenet needs "),
        (["prepare", "digits", "--workers", "0"], "invalid value for '--workers': 0 is not in the range"),
        (["info"], "missing argument 'CONFIG_OR_DATASET'"),
    ],
)
def test_bad_input_is_one_line(said, tmp_path, monkeypatch, arguments, fault):
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").write_text("name: x\n")
    Path("list.yaml").write_text("dataset: [1]\n")
    code, out, err = said("data", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {fault}")
    assert len(err.splitlines()) == 1


def test_list_shows_every_data_set_where_it_is_and_what_is_prepared(folder, said, cache, tmp_path):
    code, out, err = said("data", "list", "--root", tmp_path)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["cifar100"] == ["50,000", "10,000", "3x32x32", "100", "no"]
    assert rows["imagewoof"] == ["?", "500", "3x128x128", "10", "no"]
    assert rows["digits"] == ["1,437", "360", "1x8x8", "10", "(embedded)"]
    assert rows["image-folder"] == ["needs", "size"]
    assert f"nothing prepared in {cache}" in out

    (tmp_path / "cifar-10-batches-py").mkdir()
    said(*prepare(folder))
    out = said("data", "list", "--root", tmp_path)[1]
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["cifar10"][-1] == str(tmp_path / "cifar-10-batches-py")
    table = out.partition(f"prepared in {cache}:\n\n")[2].splitlines()
    how = "RGB, shorter side 8 (bilinear, antialiased), centre 8x8"
    assert [line.split(maxsplit=6) for line in table[1:]] == [
        ["image-folder", "test", "2", "3x8x8", "0.0", "MiB", f"{folder}  {how}"],
        ["image-folder", "train", "4", "3x8x8", "0.0", "MiB", f"{folder}  {how}"],
    ]


def test_info_states_the_facts_of_a_data_set_that_is_not_there(said, tmp_path):
    code, out, err = said("data", "info", "svhn", "--set", f"dataset.root={tmp_path}")
    assert (code, err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[2:] if "  " in line.strip())
    assert rows["licence"] == "non-commercial use only"
    assert rows["mean"] == "0.4377, 0.4438, 0.4728"
    assert rows["checked"] == "by    the official md5 of each file"
    assert out.splitlines()[-1].startswith("not found; ")


def test_info_gives_the_words_of_imagenets_classes(said, tmp_path):
    out = said("data", "info", "imagesquawk", "--set", f"dataset.root={tmp_path}")[1]
    assert "  0  n01806143  peacock" in out.splitlines()


def test_info_says_what_is_there_and_the_digests_of_the_record(said, folder):
    from ddrank_datasets.digits import Digits

    from ddrank_core.engine.prepared import digest_of

    data = Digits().load()
    out = said("data", "info", "digits")[1]
    assert f"train sha256  {digest_of(data.train_images, data.train_labels)}" in out.splitlines()

    about = ["data", "info", "image-folder", "--set", f"root={folder}", "--set", "size=8"]
    assert "train prepared  no; 'ddrank data prepare' does it" in said(*about)[1].splitlines()
    said(*prepare(folder))
    pixels = ImageFolder(root=folder, size=8).load().train_images.numpy().tobytes()
    line = f"train prepared  pixels sha256 {hashlib.sha256(pixels).hexdigest()}"
    assert line in said(*about)[1].splitlines()


ACME = """
from pathlib import Path
from typing import ClassVar
from ddrank_core import ComponentSpec, Pictures, RealData, component, decoded, hookimpl, parameter

@hookimpl
def ddrank_datasets():
    return [ComponentSpec("acme/dots", "acme:Dots", "Dots"), ComponentSpec("acme/odd", "acme:Odd", "Odd")]

def decode(path):
    import numpy as np
    return np.full((1, 2, 2), int(path.read_text()), dtype=np.uint8)

@component
class Dots:
    root: Path = parameter("where", default=Path("."))
    shape: ClassVar = (1, 2, 2)
    parts: ClassVar = ("train", "test")

    def pictures(self):
        return [Pictures(name=name, root=self.root, files=[name], shape=self.shape, recipe="dots",
                         decode=decode) for name in self.parts]

    def load(self):
        import torch
        train, test = decoded(self.pictures(), str(self.root))
        return RealData(train_images=train.images, train_labels=torch.zeros(1, dtype=torch.int64),
                        test_images=test.images, test_labels=torch.zeros(1, dtype=torch.int64),
                        class_names=("dot",), mean=(0.5,), std=(0.5,), source="acme")

@component
class Odd(Dots):
    shape: ClassVar = (3, 2, 2)
    parts: ClassVar = ("train",)

    def facts(self):
        raise KeyError("a bug of acme")
"""


def test_a_third_partys_data_set_is_prepared_by_the_public_contract(install, said, tmp_path, monkeypatch):
    install("acme", ACME)
    (tmp_path / "train").write_text("7")
    (tmp_path / "test").write_text("9")
    code, out, _ = said("data", "prepare", "acme/dots", "--set", f"root={tmp_path}")
    assert (code, out.splitlines()[1].split(",")[0]) == (0, "acme/dots test: 1 images 1x2x2")
    monkeypatch.setattr(image_cache, "decode_in_memory", None)
    import acme

    assert acme.Dots(root=tmp_path).load().test_images.flatten().tolist() == [9] * 4


def test_what_a_third_partys_data_set_gets_wrong_is_one_line_that_names_it(install, said, tmp_path):
    install("acme", ACME)
    (tmp_path / "train").write_text("7")
    code, _, err = said("data", "prepare", "acme/odd", "--set", f"root={tmp_path}")
    assert (code, err) == (
        2,
        f"error: {tmp_path / 'train'}: was decoded to uint8 [1, 2, 2], but its data set declares "
        "uint8 [3, 2, 2]\n",
    )
    code, _, err = said("data", "info", "acme/odd")
    assert err == "error: dataset 'acme/odd' of acme 1.2: facts() fails: KeyError: 'a bug of acme'\n"
    (tmp_path / "train").write_text("seven")
    code, _, err = said("data", "prepare", "acme/dots", "--set", f"root={tmp_path}")
    assert err.startswith(f"error: {tmp_path / 'train'}: cannot be read as a picture: ValueError: ")
    code, out, _ = said("data", "list")
    rows = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("acme/")]
    assert code == 0
    assert rows[1][1].startswith("cannot be used: dataset 'acme/odd' of acme 1.2: facts() fails")
    assert rows[0][1].endswith("does not say")


SCRIPT = """
import sys
from ddrank_core.cli.main import main
main(sys.argv[1:])
heavy = {"torch", "torchvision", "numpy", "timm", "kornia", "sklearn", "scipy", "PIL"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["info", "tiny-imagenet"], ["prepare", "digitz"]]
)
def test_what_reads_no_images_imports_nothing_heavy(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "data", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
