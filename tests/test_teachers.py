"""Teachers: trained once and described, read from whatever people saved, and asked before they are used."""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_case import CONFIG, RECIPE, prepared_case, run_case, write_case
from torch import nn

from ddrank_core.cli.main import main
from ddrank_core.config import load_run, load_teacher
from ddrank_core.engine.checkpoints import load_checkpoint, read_about, save_checkpoint, weights_digest
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.teacher_check import SAMPLE, check_about, check_sample, check_teacher, check_teachers
from ddrank_core.engine.teacher_training import train_teacher
from ddrank_core.errors import ConfigError, DataError, RunFailed
from ddrank_core.events import EpochFinished
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer
from ddrank_core.types import RealData

CPU = torch.device("cpu")
CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "teachers"
NETWORK = {"use": "convnet", "depth": 2, "width": 16}
DIGITS = {
    "dataset": "digits",
    "network": NETWORK,
    "recipe": {
        "optimizer": "sgd",
        "schedule": "constant",
        "epochs": 4,
        "batch_size": 64,
        "learning_rate": 0.05,
    },
}
REGISTRY = default_registry()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep trained teachers of a test in its own folder, and the number of threads the same everywhere."""
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def real() -> RealData:
    return Structurer(REGISTRY, Path()).chosen("dataset", "digits").component.load()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The checkpoint of a small ConvNet that knows the digits."""
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRANK_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        train(folder, output=folder / "teacher.safetensors")
    return folder / "teacher.safetensors"


def write(folder: Path, **changes) -> Path:
    path = folder / "teacher.yaml"
    path.write_text(yaml.safe_dump({**DIGITS, **changes}))
    return path


def train(folder, output=None, emit=lambda hook, event: None, overrides=(), save_every=None, **changes):
    path = write(folder, **changes)
    config = load_teacher(path, REGISTRY, overrides)
    output = output or folder / "teacher.safetensors"
    return train_teacher(config, str(path), REGISTRY, CPU, output, emit, save_every=save_every)


def built(real: RealData, **parameters) -> nn.Module:
    chosen = Structurer(REGISTRY, Path()).chosen("architecture", {**NETWORK, **parameters})
    torch.manual_seed(0)
    return chosen.component.build(real.num_classes, real.image_shape).eval()


def knowing(real: RealData, checkpoint: Path) -> nn.Module:
    network = built(real)
    load_checkpoint(network, checkpoint, "t")
    return network


def sample(real: RealData, mean=None, std=None) -> ImageSet:
    return check_sample(real, normaliser(mean or real.mean, std or real.std, CPU), CPU)


def refused(network, images, real, declared=None) -> str:
    with pytest.raises(DataError) as caught:
        check_teacher(network, images, real.class_names, declared, "case.yaml: teachers[0].checkpoint")
    text = str(caught.value)
    assert text.startswith("case.yaml: teachers[0].checkpoint: ")
    assert "\n" not in text
    return text


# -- training ----------------------------------------------------------------------------------


def test_a_checkpoint_says_what_its_network_is(real, trained):
    about = read_about(trained)
    assert ("digits", real.class_names, real.mean, real.std, None) == (
        about.dataset,
        about.class_names,
        about.mean,
        about.std,
        about.whitening,
    )
    assert about.network == {
        "use": "convnet",
        "depth": 2,
        "width": 16,
        "norm": "instance",
        "pooling": "avg",
        "activation": "relu",
    }
    assert (about.recipe["epochs"], about.recipe["optimizer"]["momentum"]) == (4, 0.9)
    assert (about.seed, about.epoch) == (0, 4)
    assert set(about.versions) == {"ddrank", "torch"}


def test_the_accuracy_in_a_checkpoint_is_that_on_the_test_set(real, trained):
    network = built(real)
    network.load_state_dict(load_file(trained))
    with torch.no_grad():
        logits = network((real.test_images - real.mean[0]) / real.std[0])
    expected = (logits.argmax(dim=1) == real.test_labels).sum().item() / len(real.test_labels)
    assert expected == read_about(trained).accuracy
    assert expected > 0.85


def test_the_same_training_is_done_once(tmp_path):
    seen: list[object] = []
    short = {**DIGITS["recipe"], "epochs": 1}
    runs = [
        train(tmp_path, tmp_path / name, lambda hook, event: seen.append(event), recipe=short)
        for name in ("a.safetensors", "a.safetensors", "b.safetensors")
    ]
    assert [(True, True), (False, False), (False, True)] == [(run.trained, run.written) for run in runs]
    assert len([event for event in seen if isinstance(event, EpochFinished)]) == 1
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert train(tmp_path, tmp_path / "c.safetensors", seed=1, recipe=short).trained


def test_a_run_with_the_same_recipe_and_seed_finds_the_teacher_in_the_cache(tmp_path, cache):
    prepared = prepared_case(
        tmp_path,
        recipe={**RECIPE, "labels": "teacher", "loss": {"use": "kl"}},
        teachers=[{"use": "convnet", "depth": 1, "width": 8}],
        scores=["ior"],
    )
    teacher = {
        "dataset": CONFIG["dataset"],
        "network": {"use": "convnet", "depth": 1, "width": 8},
        "recipe": CONFIG["full_data"]["recipe"],
    }
    kept = train(tmp_path, tmp_path / "t.safetensors", **teacher)
    outcome = run_case(prepared, tmp_path / "trials")
    assert [("cache", kept.about.weights)] == [(t["source"], t["digest"]) for t in outcome.teachers]


def test_a_snapshot_is_what_a_shorter_training_ends_with(tmp_path):
    train(tmp_path, tmp_path / "long.safetensors", recipe={**DIGITS["recipe"], "epochs": 3}, save_every=1)
    train(tmp_path, tmp_path / "short.safetensors", recipe={**DIGITS["recipe"], "epochs": 1})
    assert sorted(path.name for path in tmp_path.glob("long*")) == [
        "long-epoch0001.safetensors",
        "long-epoch0002.safetensors",
        "long.safetensors",
    ]
    snapshot = load_file(tmp_path / "long-epoch0001.safetensors")
    short = load_file(tmp_path / "short.safetensors")
    assert all(torch.equal(snapshot[name], short[name]) for name in short)
    about = read_about(tmp_path / "long-epoch0001.safetensors")
    assert (1, None) == (about.epoch, about.accuracy)


def test_an_interrupted_training_leaves_no_file(tmp_path, cache):
    def interrupt(hook, event):
        if isinstance(event, EpochFinished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tmp_path / "out" / "teacher.safetensors", interrupt)
    assert not (tmp_path / "out").exists()
    assert list(cache.rglob("*.safetensors")) == []


def test_a_diverged_training_is_not_kept(tmp_path, cache):
    with pytest.raises(RunFailed, match=r"convnet diverged in training; lower recipe\.learning_rate"):
        train(
            tmp_path, recipe={**DIGITS["recipe"], "learning_rate": 1e30}, network={**NETWORK, "norm": "none"}
        )
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_another_training_does_not_replace_a_teacher_unasked(tmp_path, trained):
    output = tmp_path / "teacher.safetensors"
    output.write_bytes(trained.read_bytes())
    with pytest.raises(ConfigError, match="exists and is not this training's; give --force"):
        train(tmp_path, output, seed=7)
    assert output.read_bytes() == trained.read_bytes()


def test_a_config_without_a_recipe_needs_pretrained_weights(tmp_path):
    with pytest.raises(ConfigError, match="recipe: missing; convnet has no pretrained weights to keep"):
        load_teacher(write(tmp_path, recipe=None), REGISTRY)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_teachers_recipe_is_well_formed_and_says_where_it_is_from(path):
    config = load_teacher(path, REGISTRY)
    assert config.name == path.stem
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Source:" in line for line in comment)
    assert any("Expected:" in line for line in comment)


# -- the command -------------------------------------------------------------------------------


def test_the_command_trains_prints_the_accuracy_and_then_has_nothing_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(write(tmp_path, recipe={**DIGITS["recipe"], "epochs": 1}))
    assert main(["teacher", "train", config, "--device", "cpu"]) == 0
    first = capsys.readouterr()
    about = read_about(Path("teachers/teacher.safetensors"))
    start = f"teachers/teacher.safetensors: convnet on digits, test accuracy {100 * about.accuracy:.1f} % ("
    assert first.out.startswith(f"{start}trained in ")
    assert "1/1 trials" in first.err
    assert main(["teacher", "train", config, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{start}trained before, nothing to do)\n"


def test_ctrl_c_ends_the_command_in_one_line(tmp_path, install, capsys):
    install(
        "impatient",
        "from ddrank_core import hookimpl\n@hookimpl\ndef ddrank_epoch_finished(event):\n"
        "    raise KeyboardInterrupt\n",
    )
    output = tmp_path / "out" / "t.safetensors"
    assert main(["teacher", "train", str(write(tmp_path)), "-o", str(output), "--quiet"]) == 130
    assert capsys.readouterr().err == (
        "error: interrupted; the same command goes on from about a minute before\n"
    )
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "options", "code", "message"),
    [
        ({}, ["-o", "t.pt"], 2, "error: -o t.pt: must end in .safetensors"),
        (
            {"network": {"use": "convnet", "depth": 5}},
            [],
            2,
            "teacher.yaml: network: convnet of depth 5 needs",
        ),
        ({"recipe": None}, [], 2, "teacher.yaml: recipe: missing"),
        ({}, ["--set", "recipe.epoch=3"], 2, "recipe.epoch: unknown field (did you mean 'epochs'?)"),
        ({}, ["--save-every", "0"], 2, "--save-every"),
        (
            {"network": {**NETWORK, "norm": "none"}},
            ["--set", "recipe.learning_rate=1e30", "--set", "recipe.epochs=1"],
            1,
            "diverged in training; lower recipe.learning_rate",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_an_exit_code(
    tmp_path, monkeypatch, capsys, changes, options, code, message
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, **changes)
    assert main(["teacher", "train", str(path), "--quiet", "--device", "cpu", *options]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# -- reading -----------------------------------------------------------------------------------


WRAPS = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{n}": t for n, t in state.items()},
    "DataParallel around the features": lambda state: {
        n.replace("features.", "features.module."): t for n, t in state.items()
    },
    "torch.compile of a wrapper": lambda state: {f"_orig_mod.model.{n}": t for n, t in state.items()},
    "kuangliu's": lambda state: {
        "net": {n.replace("classifier", "linear"): t for n, t in state.items()},
        "acc": 93.0,
        "epoch": 199,
    },
    "torchvision's reference training": lambda state: {
        "model": state,
        "args": argparse.Namespace(epochs=50, opt="sgd"),
        "epoch": 49,
    },
    "model_state_dict with numpy's numbers": lambda state: {
        "model_state_dict": state,
        "best": torch.tensor(0.5).numpy()[()],
    },
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_weights_are_found_however_they_were_saved(real, trained, tmp_path, wrap):
    state = load_file(trained)
    torch.save(wrap(state), tmp_path / "t.pt")
    network = knowing(real, tmp_path / "t.pt")
    assert weights_digest(network) == read_about(trained).weights


def test_torchvisions_resnet_gives_the_same_logits_in_the_dc_familys_names(tmp_path):
    chosen = Structurer(REGISTRY, Path())
    torch.manual_seed(0)
    theirs = chosen.chosen("architecture", {"use": "torchvision/resnet18", "stem": "small"}).component
    ours = chosen.chosen("architecture", "ResNet-18-BN").component
    saved, network = theirs.build(10, (3, 32, 32)).eval(), ours.build(10, (3, 32, 32)).eval()
    torch.save(saved.state_dict(), tmp_path / "t.pth")
    load_checkpoint(network, tmp_path / "t.pth", "t")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(saved(images), network(images), atol=1e-5)


def test_counters_that_old_versions_of_torch_did_not_keep_may_be_missing(real, tmp_path):
    network = built(real, norm="batch")
    state = {n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "t.pt")
    other = built(real, norm="batch", width=16)
    load_checkpoint(other, tmp_path / "t.pt", "t")
    assert weights_digest(other) == weights_digest(network)


def test_an_expert_trajectory_is_not_taken_for_a_teacher(real, tmp_path):
    torch.save([[[p.detach() for p in built(real).parameters()]]], tmp_path / "replay_buffer_0.pt")
    with pytest.raises(DataError, match="holds a list, as MTT's expert trajectories do"):
        load_checkpoint(built(real), tmp_path / "replay_buffer_0.pt", "t")


def teacher_dir(tmp_path, *folders) -> Path:
    for folder in folders:
        (tmp_path / "teachers" / folder).mkdir(parents=True)
        (tmp_path / "teachers" / folder / "ckpt_best.pt").write_bytes(b"")
    return tmp_path / "teachers"


@pytest.mark.parametrize(
    ("dataset", "use", "folder"),
    [
        ("cifar10", "ConvNet-3-BN", "CIFAR10/ConvNet-3-BN"),
        ("tiny-imagenet", "ConvNet-4", "TinyImageNet/ConvNet-4"),
        ("imagenet", "ResNet-18-BN", "ImageNet1K/ResNet-18-BN"),
    ],
)
def test_a_teacher_is_found_in_ddrankings_folder(tmp_path, dataset, use, folder):
    root = teacher_dir(tmp_path, folder, "CIFAR10/ConvNet-3", "CIFAR100/ConvNet-3-BN")
    path = write_case(
        tmp_path, dataset={"use": dataset}, teachers=[{"use": use, "checkpoint": "teachers"}], scores=["hlr"]
    )
    config = load_run(path, REGISTRY)
    assert config.teachers[0].checkpoint == root / folder / "ckpt_best.pt"
    assert config.resolved()["teachers"][0]["checkpoint"] == str(root / folder / "ckpt_best.pt")


def test_a_folder_without_the_teacher_says_what_it_has(tmp_path):
    teacher_dir(tmp_path, "CIFAR100/ConvNet-3", "CIFAR10/ResNet-18-BN")
    path = write_case(
        tmp_path, dataset="cifar10", teachers=[{"use": "ConvNet-3", "checkpoint": "teachers"}], scores=["hlr"]
    )
    with pytest.raises(ConfigError) as caught:
        load_run(path, REGISTRY)
    assert str(caught.value).endswith(
        "has no <dataset>/<network>/ckpt_best.pt for cifar10 and ConvNet-3; it has CIFAR10/ResNet-18-BN, "
        "CIFAR100/ConvNet-3"
    )


# -- asking ------------------------------------------------------------------------------------


def test_a_good_teacher_passes_with_its_accuracy_on_training_images(real, trained):
    network = knowing(real, trained)
    images = sample(real)
    with torch.no_grad():
        answers = network((real.train_images - real.mean[0]) / real.std[0]).argmax(dim=1)
    expected = (answers == real.train_labels).sum().item() / len(answers)
    check = check_teacher(network, images, real.class_names, 0.9, "t")
    # The digits' 1,437 training images are fewer than the sample may be.
    assert (1437, expected, 0.9, None) == (check.images, check.accuracy, check.declared, check.note)
    assert check.reordered <= check.accuracy


def reordered(network: nn.Module, order: list[int]) -> nn.Module:
    """Give class k of the network the place order[k]."""
    places = torch.tensor(order).argsort()
    for tensor in (network.classifier.weight, network.classifier.bias):
        tensor.data = tensor.data[places]
    return network


def test_a_teacher_with_its_classes_in_another_order_is_refused_and_the_classes_are_named(real, trained):
    order = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    text = refused(reordered(knowing(real, trained), order), sample(real), real)
    assert "the teacher's classes are in another order: its class " in text
    named = {f"its class {order[k]} is the data set's {k} '{k}'" for k in range(10)}
    assert sum(name in text for name in named) == 3
    assert "and 7 more are moved" in text


def test_two_exchanged_classes_are_enough(real, trained):
    order = [0, 1, 2, 7, 4, 5, 6, 3, 8, 9]
    text = refused(reordered(knowing(real, trained), order), sample(real), real)
    assert "its class 7 is the data set's 3 '3'" in text
    assert "its class 3 is the data set's 7 '7'" in text
    assert "more are moved" not in text


def test_the_order_of_folders_is_recognised(real, trained):
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    # A class's place among the sorted names, as ImageFolder numbers folders.
    order = [sorted(names).index(name) for name in names]
    named = attrs.evolve(real, class_names=names)
    text = refused(reordered(knowing(real, trained), order), sample(real), named)
    assert "(they follow the alphabet of their names)" in text


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_network_that_was_not_trained_is_refused_as_guessing(real, depth):
    text = refused(built(real, depth=depth, width=32), sample(real), real)
    assert "of 1437 real training images right, and guessing 10.0 %" in text
    assert "another normalisation or order of classes" in text


def test_a_normalisation_that_blinds_a_teacher_is_noticed(real, tmp_path):
    network = {**NETWORK, "norm": "none"}
    train(tmp_path, network=network)
    plain = built(real, norm="none")
    load_checkpoint(plain, tmp_path / "teacher.safetensors", "t")
    assert check_teacher(plain, sample(real), real.class_names, None, "t").accuracy > 0.7
    # Statistics of pixels in 0..255, on pixels in 0..1.
    wrong = sample(real, mean=(255 * real.mean[0],), std=(255 * real.std[0],))
    assert "and guessing 10.0 %: it was trained on other data, with another normalisation" in refused(
        plain, wrong, real
    )


def test_a_teacher_far_below_its_declared_accuracy_is_refused(real, trained):
    network = knowing(real, trained)
    with torch.no_grad():
        # It no longer tells the digits from 5 on.
        network.classifier.bias[5:] = -1e4
    text = refused(network, sample(real), real, declared=0.95)
    assert "far below its declared test accuracy of 95.0 %" in text
    assert check_teacher(network, sample(real), real.class_names, None, "t").declared is None


def test_a_weak_teacher_passes_with_a_note(real, trained):
    network = knowing(real, trained)
    with torch.no_grad():
        network.classifier.bias[2:] = -1e4
    check = check_teacher(network, sample(real), real.class_names, None, "t")
    assert (
        check.note
        == f"The teacher gets only {100 * check.accuracy:.1f} % of 1437 real training images right."
    )


def test_logits_that_are_not_finite_are_refused(real, trained):
    network = knowing(real, trained)
    with torch.no_grad():
        network.classifier.bias[0] = float("nan")
    assert "NaN or infinite logits" in refused(network, sample(real), real)


class Known(nn.Module):
    """Reads an image's class from its pixels, answers it right in so many of ten cases, and moves it."""

    def __init__(self, order: torch.Tensor, tenths: int) -> None:
        super().__init__()
        self.order, self.tenths = order, tenths

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        label, number = images[:, 0, 0, 0].round().long(), images[:, 0, 0, 1].round().long()
        wrong = (label + 1 + number * 7919) % len(self.order)
        right = (number * 31 + label) % 10 < self.tenths
        return nn.functional.one_hot(self.order[torch.where(right, label, wrong)], len(self.order)).float()


def coded(classes: int, per_class: int) -> RealData:
    labels = torch.arange(classes).repeat(per_class)
    images = torch.zeros(len(labels), 1, 1, 2)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = labels, torch.arange(len(labels)) // classes
    return RealData(
        train_images=images,
        train_labels=labels,
        test_images=images[:0],
        test_labels=labels[:0],
        class_names=tuple(f"n{label:04}" for label in range(classes)),
        mean=(0.0,),
        std=(1.0,),
        source="made up",
    )


def test_a_thousand_classes_are_told_apart_by_two_images_each():
    real = coded(1000, 12)
    images = check_sample(real, normaliser((0.0,), (1.0,), CPU), CPU)
    straight = torch.arange(1000)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    check = check_teacher(Known(straight, 7), images, real.class_names, None, "t")
    assert 0.65 < check.accuracy < 0.75
    assert "are in another order" in refused(Known(order, 7), images, real)
    assert "and guessing 0.1 %" in refused(Known(straight, 0), images, real)


def test_the_sample_holds_every_class_alike_and_is_always_the_same():
    real = coded(300, 20)
    images = check_sample(real, normaliser((0.0,), (1.0,), CPU), CPU)
    counts = images.labels.bincount(minlength=300)
    assert (SAMPLE, 6, 7) == (len(images), int(counts.min()), int(counts.max()))
    assert torch.equal(images.images, sample(real).images)
    assert len(check_sample(coded(3000, 2), normaliser((0.0,), (1.0,), CPU), CPU).labels.unique()) == SAMPLE


# -- descriptions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "whitening", "message"),
    [
        ({}, None, None),
        (
            {"class_names": tuple("0123456798")},
            None,
            "in another order: its class 8 is '9', the data set's '8'",
        ),
        ({"class_names": ("a", "b")}, None, "2 classes, and the data set has 10"),
        ({"std": (0.5,)}, None, "normalised with std 0.5, and the data set's is 0.3755"),
        ({"mean": (0.3054 + 0.005,)}, None, None),
        ({}, 0.1, "was trained on normalised images, and this run is on ZCA-whitened (eps 0.1) ones"),
        ({"whitening": 0.1}, 0.1, None),
        ({"weights": "0" * 64}, None, "the weights are not those that its description was written for"),
    ],
)
def test_a_description_that_does_not_fit_the_data_set_is_refused(
    real, trained, tmp_path, changes, whitening, message
):
    network, path = knowing(real, trained), tmp_path / "t.safetensors"
    save_checkpoint(network, path, attrs.evolve(read_about(trained), **changes))
    if message is None:
        assert check_about(network, path, real, whitening, "t").dataset == "digits"
        return
    with pytest.raises(DataError) as caught:
        check_about(network, path, real, whitening, "t")
    assert message in str(caught.value)


def test_a_checkpoint_of_others_says_nothing_about_itself(real, tmp_path):
    torch.save(built(real).state_dict(), tmp_path / "t.pt")
    save_checkpoint(built(real), tmp_path / "t.safetensors")
    assert read_about(tmp_path / "t.pt") is None
    assert read_about(tmp_path / "t.safetensors") is None


def test_the_teachers_of_a_run_are_checked_without_its_test_set(tmp_path):
    recipe = {**RECIPE, "labels": "teacher", "loss": {"use": "kl"}}
    network = {"use": "convnet", "depth": 1, "width": 8}
    write_case(tmp_path)
    kept = train(
        tmp_path, dataset=CONFIG["dataset"], network=network, recipe={**DIGITS["recipe"], "epochs": 10}
    )
    teachers = [network, {**network, "checkpoint": "teacher.safetensors"}]
    prepared = prepared_case(tmp_path, recipe=recipe, teachers=teachers, scores=["ior"])
    none = attrs.evolve(
        prepared.real, test_images=prepared.real.test_images[:0], test_labels=prepared.real.test_labels[:0]
    )
    first, second = check_teachers(attrs.evolve(prepared, real=none))
    assert first is None
    assert (kept.about.accuracy, 60) == (second.declared, second.images)
    state = load_file(tmp_path / "teacher.safetensors")
    torch.save(
        {n: t.flip(0) if n.startswith("classifier") else t for n, t in state.items()}, tmp_path / "flipped.pt"
    )
    teachers = [{**network, "checkpoint": "flipped.pt"}]
    with pytest.raises(
        DataError, match=r"teachers\[0\]\.checkpoint: the teacher's classes are in another order"
    ):
        check_teachers(prepared_case(tmp_path, recipe=recipe, teachers=teachers, scores=["ior"]))


def test_the_same_weights_in_another_network_are_another_teacher(tmp_path, cache):
    recipe = {**RECIPE, "labels": "teacher", "loss": {"use": "kl"}}
    network = {"use": "convnet", "depth": 1, "width": 8}
    write_case(tmp_path)
    train(tmp_path, dataset=CONFIG["dataset"], network=network, recipe={**DIGITS["recipe"], "epochs": 10})

    def reused(**parameters) -> set[bool]:
        teacher = {**network, **parameters, "checkpoint": "teacher.safetensors"}
        prepared = prepared_case(tmp_path, recipe=recipe, teachers=[teacher], scores=["ior"])
        return {trial.reused for trial in run_case(prepared, cache).trials}

    assert {False} == reused(pooling="avg")
    # It has the same tensors, and other logits.
    assert {False} == reused(pooling="max")
    assert {True} == reused(pooling="avg")
