"""`ddrank convert`: every key of a config of ddranking is kept, corrected or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ddrank_core.cli.main import main
from ddrank_core.compat.convert import convert
from ddrank_core.compat.findings import Translation
from ddrank_core.compat.translate import translate
from ddrank_core.config import load_run
from ddrank_core.errors import ConfigError
from ddrank_core.registry import Registry, default_registry

HARD: dict[str, Any] = {
    "dataset": "CIFAR10",
    "real_data_path": "data",
    "ipc": 10,
    "im_size": [32, 32],
    "model_name": "ConvNet-3",
    "data_aug_func": "dsa",
    "aug_params": {"flip": 0.5, "rotate": 10.0},
    "optimizer": "sgd",
    "lr_scheduler": "step",
    "step_size": 40,
    "weight_decay": 0.001,
    "momentum": 0.8,
    "num_eval": 3,
    "num_epochs": 80,
    "syn_batch_size": 64,
    "real_batch_size": 128,
    "eval_full_data": True,
    "save_path": "results/mine.csv",
}
SOFT: dict[str, Any] = {
    **{key: value for key, value in HARD.items() if key not in ("step_size", "momentum")},
    "data_aug_func": "cutmix",
    "aug_params": {"beta": 0.5},
    "teacher_dir": "teachers",
    "teacher_model_names": ["ConvNet-3-BN"],
    "soft_label_mode": "M",
    "soft_label_criterion": "kl",
    "loss_fn_kwargs": {"temperature": 4.0, "scale_loss": True},
    "optimizer": "adamw",
    "lr_scheduler": "cosine",
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return default_registry()


def translated(registry: Registry, old: dict[str, Any], **changes: Any) -> Translation:
    return translate({**old, **changes}, "old.yaml", registry)


def verdict(found: Translation, key: str) -> str:
    return next(finding.verdict for finding in found.findings if finding.key == key)


def test_a_config_with_hard_labels_becomes_one_of_ours(registry):
    dsa = {"use": "dsa", "flip": 0.5, "rotate": 10.0}
    assert {
        "name": "mine-cifar10-convnet-3-ipc10",
        "dataset": {"use": "cifar10", "root": "data"},
        "distilled": {"ipc": 10},
        "student": "ConvNet-3",
        "recipe": {
            "labels": {"use": "hard"},
            "loss": {"use": "ce"},
            "augmentation": [dsa],
            "optimizer": {"use": "sgd", "momentum": 0.8, "weight_decay": 0.001},
            "schedule": {"use": "step", "step_size": 40},
            "epochs": 80,
            "batch_size": 64,
        },
        "hard": {"augmentation": [dsa]},
        "full_data": {
            "recipe": {
                "optimizer": {"use": "sgd", "momentum": 0.9, "weight_decay": 0.0005},
                "schedule": {"use": "step", "step_size": 100},
                "epochs": 200,
                "learning_rate": 0.01,
                "batch_size": 128,
            }
        },
        "protocol": {"use": "strict", "repeats": 3},
        "scores": ["hlr", "ior", "ior_hlr", "lrs"],
    } == translated(registry, HARD).values


def test_a_config_with_soft_labels_keeps_its_teacher_loss_and_augmentation(registry):
    values = translated(registry, SOFT).values
    assert [{"use": "ConvNet-3-BN", "checkpoint": "teachers/CIFAR10/ConvNet-3-BN/ckpt_best.pt"}] == values[
        "teachers"
    ]
    assert {"use": "teacher"} == values["recipe"]["labels"]
    assert {"use": "kl", "temperature": 4.0, "scale_loss": True} == values["recipe"]["loss"]
    assert [{"use": "cutmix", "beta": 0.5}] == values["recipe"]["augmentation"]
    # Its hard-label arm has no augmentation unless use_aug_for_hard says so.
    assert "hard" not in values
    with_hard = translated(registry, SOFT, use_aug_for_hard=True).values
    assert {"augmentation": [{"use": "cutmix", "beta": 0.5}]} == with_hard["hard"]


def test_every_key_that_is_given_has_a_finding(registry):
    every = {
        **SOFT,
        "use_zca": True,
        "use_aug_for_hard": True,
        "stu_use_torchvision": False,
        "tea_use_torchvision": False,
        "default_lr": 0.01,
        "num_workers": 4,
        "device": "cuda",
        "dist": True,
        "random_data_path": "random",
        "random_data_format": "image",
        "momentum": 0.9,
        "step_size": 5,
        "custom_train_trans": [{"name": "ToTensor"}],
        "custom_val_trans": [{"name": "ToTensor"}],
        "colour": "blue",
    }
    found = translated(registry, every)
    assert set(every) == {finding.key for finding in found.findings}
    assert "no effect" == verdict(found, "colour")


@pytest.mark.parametrize(
    ("changes", "schedule"),
    [
        ({"lr_scheduler": "cosine"}, {"use": "half-cosine"}),
        ({"lr_scheduler": "cosineannealing"}, {"use": "cosine"}),
        ({"lr_scheduler": "lambda_cos"}, {"use": "half-cosine"}),
        # A temperature of its own is 0.1's, whose cosine went to zero.
        (
            {"loss_fn_kwargs": None, "teacher_model_names": None, "eval_full_data": None, "temperature": 2.0},
            {"use": "cosine"},
        ),
        ({"lr_scheduler": "step"}, {"use": "step", "step_size": 41}),
        ({"lr_scheduler": "step", "step_size": 7}, {"use": "step", "step_size": 7}),
    ],
)
def test_a_schedule_means_what_it_meant_in_its_release(registry, changes, schedule):
    assert schedule == translated(registry, SOFT, **changes).values["recipe"]["schedule"]


def test_a_schedule_that_is_not_known_is_refused(registry):
    with pytest.raises(ConfigError, match=r"^old\.yaml: lr_scheduler: must be step, .* got 'lambda_step'"):
        translated(registry, SOFT, lr_scheduler="lambda_step")


def test_the_parameters_that_its_readme_shows_for_dsa_are_taken_for_what_they_say(registry):
    found = translated(registry, HARD, aug_params={"prob_flip": 0.2, "ratio_crop_pad": 0.1, "latestseed": 3})
    assert [{"use": "dsa", "flip": 0.2, "crop": 0.1}] == found.values["recipe"]["augmentation"]
    assert "wrong" == verdict(found, "aug_params.prob_flip")
    assert "no effect" == verdict(found, "aug_params.latestseed")


def test_mixing_without_mixing_the_labels_is_called_wrong_unless_a_teacher_labels_the_views(registry):
    mixup = {"data_aug_func": "mixup", "aug_params": {"lambda": 0.8}}
    hard, soft = translated(registry, HARD, **mixup), translated(registry, SOFT, **mixup)
    assert [{"use": "mixup", "alpha": 0.8}] == hard.values["recipe"]["augmentation"]
    assert ("wrong", "kept") == (verdict(hard, "data_aug_func"), verdict(soft, "data_aug_func"))


def test_cifar100_with_the_statistics_of_cifar10_is_called_wrong(registry):
    assert "wrong" == verdict(translated(registry, HARD, dataset="CIFAR100"), "dataset")


TINY = {"dataset": "TinyImageNet", "im_size": [64, 64]}


def test_the_table_of_known_accuracies_is_read_as_percent_and_named_as_source(registry):
    found = translated(registry, SOFT, **TINY, model_name="ResNet-18-BN", eval_full_data=False)
    assert 0.464 == found.values["full_data"]["accuracy"]
    assert found.values["full_data"]["source"].startswith("ddranking 0.2.0")
    assert "wrong" == verdict(found, "eval_full_data")


@pytest.mark.parametrize(
    ("name", "use_torchvision", "side", "expected"),
    [
        ("ConvNet-4", False, 64, "ConvNet-4"),
        ("ResNet-18-BN", True, 64, {"use": "torchvision/resnet18", "stem": "small"}),
        ("ResNet-50-BN", True, 224, {"use": "torchvision/resnet50"}),
        ("VGG-16-BN", True, 32, {"use": "torchvision/vgg16_bn"}),
        ("ResNet-18", False, 32, "ResNet-18"),
        # Its own ResNet halves images of 64 pixels at once.
        ("ResNet-18", False, 64, {"use": "ResNet-18", "stem": "strided"}),
        ("ConvNet-3", True, 32, "ConvNet-3"),
        ("mobilenet_v2", False, 32, "torchvision/mobilenet_v2"),
        ("resnet10t", False, 32, "timm/resnet10t"),
    ],
)
def test_a_network_is_found_under_its_old_name(registry, name, use_torchvision, side, expected):
    data = {32: "CIFAR10", 64: "TinyImageNet", 224: "ImageNet1K"}[side]
    changes = {"dataset": data, "im_size": [side, side], "model_name": name}
    found = translated(registry, HARD, **changes, use_torchvision=use_torchvision)
    assert expected == found.values["student"]
    if name == "ConvNet-3":
        assert "no effect" == verdict(found, "use_torchvision")


def test_transforms_become_augmentation_and_what_a_data_set_does_to_test_images(registry):
    train = [
        {"name": "RandomResizedCrop", "args": {"size": 64, "scale": [0.1, 1.0]}},
        {"name": "RandomHorizontalFlip", "args": [0.3]},
        {"name": "ToTensor"},
        {"name": "Normalize", "args": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}},
    ]
    test = [{"name": "Resize", "args": {"size": 72}}, {"name": "CenterCrop", "args": {"size": 64}}]
    found = translated(registry, SOFT, **TINY, custom_train_trans=train, custom_val_trans=test)
    views = [
        {"use": "random-resized-crop", "scale": [0.1, 1.0]},
        {"use": "horizontal-flip", "p": 0.3},
    ]
    assert [*views, {"use": "cutmix", "beta": 0.5}] == found.values["recipe"]["augmentation"]
    assert views == found.values["hard"]["augmentation"]
    assert 72 == found.values["dataset"]["test_resize"]
    wrong = [f.text for f in found.findings if f.key == "custom_train_trans" and f.verdict == "wrong"]
    assert ["its Normalize differs from that of the real images; here one for all, the data set's"] == wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"custom_train_trans": [{"name": "Resize", "args": {"size": 40}}]},
            "Resize: gives images of 40 pixels",
        ),
        (
            {"custom_train_trans": [{"name": "normalize"}]},
            "custom_train_trans: no augmentation 'torchvision/n",
        ),
        ({"custom_val_trans": [{"name": "RandomCrop", "args": {"size": 32}}]}, "RandomCrop: test images can"),
        ({"im_size": [32, 16]}, "im_size: must be two equal numbers"),
        ({"im_size": [64, 64]}, "im_size: 64, but CIFAR10's images have 32 pixels"),
        ({"dataset": "CIFAR11"}, r"no data set 'CIFAR11' \(did you mean 'CIFAR10'\?\)"),
        ({"model_name": "ConvNet-99"}, "model_name: no network 'ConvNet-99'"),
        ({"data_aug_func": "zca"}, "data_aug_func: must be dsa, mixup or cutmix"),
        ({"num_epochs": 0}, "num_epochs: must be a whole number above 0"),
        ({"weight_decay": "much"}, "weight_decay: must be a number, got 'much'"),
        ({"optimizer": "lamb"}, "optimizer: must be sgd, adam or adamw"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line(registry, changes, message):
    with pytest.raises(ConfigError, match=message):
        translated(registry, HARD, **changes)


def test_a_number_that_yaml_reads_as_text_is_a_number(registry):
    values = translated(registry, HARD, weight_decay="5e-4").values
    assert 0.0005 == values["recipe"]["optimizer"]["weight_decay"]


def test_whitening_of_images_that_are_too_large_is_left_out_and_said(registry):
    assert {"eps": 0.1} == translated(registry, HARD, use_zca=True).values["whitening"]
    found = translated(registry, HARD, dataset="ImageNette", im_size=[128, 128], use_zca=True)
    assert "whitening" not in found.values
    assert "left out" == verdict(found, "use_zca")


def write(path: Path, old: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(old))
    return path


@pytest.mark.parametrize(
    "old",
    [
        HARD,
        SOFT,
        {**SOFT, "label_type": "soft", "batch_size": 32},
        {**HARD, "use_soft_label": False},
        {
            **SOFT,
            "soft_label_mode": "S",
            "soft_label_criterion": "mse_gt",
            "loss_fn_kwargs": {"ce_weight": 0.1},
        },
        {**SOFT, **TINY, "model_name": "ResNet-18-BN", "stu_use_torchvision": True},
        {**HARD, "dataset": "ImageNette", "im_size": [128, 128], "model_name": "ConvNet-5"},
    ],
    ids=["hard", "soft", "augmentation", "general", "stored", "torchvision", "imagenette"],
)
def test_a_converted_config_is_read_once_its_files_are_there(registry, tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    text, found = convert(write(tmp_path / "old.yaml", old), Path("configs"), registry)
    new = tmp_path / "configs" / "new.yaml"
    new.write_text(text)
    for path in [found.values["name"], *(t["checkpoint"] for t in found.values.get("teachers", ()))]:
        stand_in = (
            Path("configs/distilled", f"{path}.safetensors") if path == found.values["name"] else Path(path)
        )
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.touch()
    config = load_run(new, registry)
    # Old paths start at the folder that ddranking is started in, ours at the config's.
    assert tmp_path / "data" == config.dataset.component.root
    assert found.values["recipe"]["epochs"] == config.recipe.epochs


def test_the_command_writes_the_config_and_a_line_for_each_key(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.yaml", {**HARD, "step_size": None, "num_workers": 4})
    assert 0 == main(["convert", "old.yaml", "-o", "new.yaml"])
    out = capsys.readouterr().out
    lines = [line.split()[:2] for line in out.splitlines() if line]
    assert ["lr_scheduler", "wrong"] == lines[0]
    assert ["num_workers", "no"] in lines
    assert ["ipc", "kept"] in lines
    text = Path("new.yaml").read_text()
    assert "# lr_scheduler (wrong): no step_size, where 0.2 stops; 41, as in 0.1" in text
    assert "# num_workers (no effect)" in text
    # All that `ddrank check` has against it is that the data is not there.
    assert 2 == main(["check", "new.yaml"])
    assert "distilled.path: no such file" in capsys.readouterr().err


def test_without_an_output_the_config_goes_to_standard_output_and_the_report_beside_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old.yaml", HARD)
    assert 0 == main(["convert", "old.yaml"])
    said = capsys.readouterr()
    assert "ConvNet-3" == yaml.safe_load(said.out)["student"]
    assert "real_data_path" in said.err


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (
            "syn_steps: 80\ndataset: CIFAR10\n",
            "model_name: missing; not a config of one of ddranking's evaluators",
        ),
        ("- a\n- b\n", "must be a mapping of ddranking's keys"),
        ("a: [\n", "cannot be read"),
        ("a: &x 1\nb: *x\n", "aliases"),
    ],
)
def test_what_is_no_config_of_ddranking_is_refused(tmp_path, capsys, old, message):
    (tmp_path / "old.yaml").write_text(old)
    assert 2 == main(["convert", str(tmp_path / "old.yaml")])
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path, capsys):
    old, new = write(tmp_path / "old.yaml", HARD), tmp_path / "new.yaml"
    new.write_text("mine")
    assert 2 == main(["convert", str(old), "-o", str(new)])
    assert "mine" == new.read_text()
    assert "--force" in capsys.readouterr().err
    assert 0 == main(["convert", str(old), "-o", str(new), "--force"])
    assert "mine" != new.read_text()


def test_a_key_that_stands_twice_counts_as_it_does_there(tmp_path, registry):
    path = write(tmp_path / "old.yaml", HARD)
    path.write_text(path.read_text() + "ipc: 50\n")
    _, found = convert(path, tmp_path, registry)
    assert {"ipc": 50} == found.values["distilled"]
