"""The Python interface of ddranking: the same arguments and the same results' names, on this engine."""

from __future__ import annotations

import csv
import inspect
import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_case import CLASSES, PER_CLASS, SIDE, pictures

import ddrank_core.compat as compat
from ddrank_core.compat import metrics
from ddrank_core.compat.config import Config
from ddrank_core.compat.transforms import steps_of, training_pipeline
from ddrank_core.config import load_run
from ddrank_core.data.distilled import save
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.run import Outcome, execute
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.registry import default_registry
from ddrank_core.store import TrialStore
from ddrank_core.types import DistilledSet, ImageSpace

DEMOS = Path(__file__).resolve().parents[1] / "docs" / "demos"
RATES = 5
"""Learning rates that ddranking tries."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a tiny real data set, and keep finished trials there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    x_train, y_train = pictures(PER_CLASS, 0)
    x_test, y_test = pictures(10, 1)
    np.savez("real.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return tmp_path


def distilled(ipc: int = 2) -> torch.Tensor:
    """Return images in [0, 1], class by class, as ddranking takes them."""
    images, labels = pictures(ipc, 2)
    order = np.argsort(labels, kind="stable")
    return torch.from_numpy(images[order]).float().unsqueeze(1) / 255


# On so small a set HLR may be zero, and the ratio is then undefined, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:ior_hlr is undefined")

ARGUMENTS: dict[str, Any] = {
    "dataset": "arrays",
    "real_data_path": "real.npz",
    "ipc": 2,
    "model_name": "MLP",
    "num_eval": 2,
    "num_epochs": 3,
    "step_size": 2,
    "num_workers": 0,
    "save_path": "scores.csv",
    "device": "cpu",
    "image_space": "unit",
}
LRS_ARGUMENTS = {**ARGUMENTS, "syn_batch_size": 4, "real_batch_size": 32, "eval_full_data": True}
SOFT = {"teacher_dir": None, "loss_fn_kwargs": {"temperature": 2.0, "scale_loss": False}}


def run_by_config(values: dict[str, Any], images: torch.Tensor, folder: Path) -> Outcome:
    """Run what is written out as a config, without the old interface."""
    labels = torch.arange(CLASSES).repeat_interleave(len(images) // CLASSES)
    save(
        DistilledSet(images=images, labels=labels, space=ImageSpace(kind="unit"), num_classes=CLASSES),
        folder / "distilled.safetensors",
    )
    path = folder / "same.yaml"
    path.write_text(json.dumps({"distilled": {"path": "distilled.safetensors"}, **values}))
    registry = default_registry()
    prepared = prepare(load_run(path, registry), str(path), registry, torch.device("cpu"))
    store = TrialStore(folder / "other-cache")
    try:
        return execute(prepared, store, lambda hook, event: None)
    finally:
        store.close()


@pytest.mark.parametrize("protocol", ["strict", "ddranking-0.2"])
def test_hard_label_scores_are_those_of_the_same_config(place, protocol):
    dsa = {"flip": 0.5, "crop": 0.2}
    evaluator = metrics.LabelRobustScoreHard(
        **LRS_ARGUMENTS, data_aug_func="dsa", aug_params=dsa, protocol=protocol
    )
    result = evaluator.compute_metrics(image_tensor=distilled(), lrs_lambda=0.3)
    chain = [{"use": "dsa", **dsa}]
    outcome = run_by_config(
        {
            "dataset": {"use": "arrays", "path": "real.npz"},
            "student": "MLP",
            "recipe": {
                "labels": "hard",
                "loss": "ce",
                "augmentation": chain,
                "optimizer": {"use": "sgd", "momentum": 0.9, "weight_decay": 0.0005},
                "schedule": {"use": "step", "step_size": 2},
                "epochs": 3,
                "batch_size": 4,
            },
            "hard": {"augmentation": chain},
            "full_data": {
                "recipe": {
                    "optimizer": {"use": "sgd"},
                    "schedule": {"use": "step", "step_size": 1},
                    "epochs": 3,
                    "batch_size": 32,
                }
            },
            "protocol": {"use": protocol, "repeats": 2},
            "scores": ["hlr", "ior", "lrs"],
        },
        distilled(),
        place,
    )
    hlr, ior = outcome.scores["hlr"], outcome.scores["ior"]
    assert pytest.approx(100 * hlr.mean) == result["hard_label_recovery_mean"]
    assert pytest.approx(100 * hlr.std) == result["hard_label_recovery_std"]
    assert pytest.approx(100 * ior.mean) == result["improvement_over_random_mean"]
    # The definition, on fractions: ddranking puts percent into the exponent.
    lrs = [
        (math.exp(0.3 * i - 0.7 * h) - math.exp(-1)) / (math.e - math.exp(-1))
        for i, h in zip(ior.values, hlr.values, strict=True)
    ]
    assert pytest.approx(sum(lrs) / 2) == result["label_robust_score_mean"]


def rows(path: str = "scores.csv") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_a_row_for_each_repeat_under_the_old_names():
    evaluator = metrics.LabelRobustScoreHard(
        **{**LRS_ARGUMENTS, "save_path": "new/folder/scores.csv"}, data_aug_func=None
    )
    result = evaluator.compute_metrics(image_tensor=distilled(), syn_lr=torch.tensor([0.02]))
    written = rows("new/folder/scores.csv")
    assert ["hard_label_recovery", "improvement_over_random", "lrs", "ior_hlr"] == list(written[0])
    assert 2 == len(written)
    recovery = [float(row["hard_label_recovery"]) for row in written]
    assert pytest.approx(sum(recovery) / 2) == result["hard_label_recovery_mean"]
    # The method's own rate is one more that every arm tries: the random images too.
    tried = {trial.learning_rate for trial in evaluator.outcome.trials if trial.arm == "rdm-any"}
    assert RATES + 1 == len(tried)


def checkpoint(name: str) -> None:
    """Train a teacher for a moment and save it where ddranking looks for it."""
    registry = default_registry()
    torch.manual_seed(0)
    network = registry.load("architecture", name)().build(CLASSES, (1, SIDE, SIDE))
    images, labels = (torch.from_numpy(array) for array in pictures(PER_CLASS, 0))
    unit = images.float().unsqueeze(1) / 255
    mean, std = unit.mean(), unit.std()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network((unit - mean) / std), labels).backward()
        optimizer.step()
    path = Path("teachers", "arrays", name, "ckpt_best.pt")
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)


def test_stored_soft_labels_are_used_and_random_images_labelled_by_the_teacher_of_the_folder():
    checkpoint("MLP")
    evaluator = metrics.LabelRobustScoreSoft(
        **LRS_ARGUMENTS,
        **{**SOFT, "teacher_dir": "teachers"},
        soft_label_mode="S",
        soft_label_criterion="sce",
        data_aug_func=None,
        teacher_model_names=["MLP"],
    )
    soft = torch.randn(2 * CLASSES, CLASSES, generator=torch.Generator().manual_seed(0))
    result = evaluator.compute_metrics(image_tensor=distilled(), soft_labels=soft)
    (teacher,) = evaluator.outcome.teachers
    assert str(Path("teachers/arrays/MLP/ckpt_best.pt").absolute()) == teacher["source"]
    assert {
        f"{name}_{what}"
        for name in ("hard_label_recovery", "improvement_over_random", "label_robust_score", "ior_hlr")
        for what in ("mean", "std")
    } == set(result)
    assert 0 <= result["label_robust_score_mean"] <= 1
    other = metrics.LabelRobustScoreSoft(
        **LRS_ARGUMENTS, **SOFT, soft_label_mode="S", soft_label_criterion="sce", data_aug_func=None
    )
    with pytest.raises(
        ConfigError, match=r"^LabelRobustScoreSoft: recipe\.labels: soft needs stored soft labels"
    ):
        other.compute_metrics(image_tensor=distilled())


def test_a_teacher_that_is_not_there_is_named():
    evaluator = metrics.LabelRobustScoreSoft(
        **LRS_ARGUMENTS, **{**SOFT, "teacher_dir": "nowhere"}, soft_label_mode="M"
    )
    with pytest.raises(ConfigError, match=r"teachers\[0\]\.checkpoint: .*nowhere/arrays/MLP/ckpt_best\.pt"):
        evaluator.compute_metrics(image_tensor=distilled())


def test_the_augmentation_score_compares_with_and_without():
    evaluator = metrics.AugmentationRobustScore(
        **ARGUMENTS, label_type="hard", data_aug_func="dsa", aug_params={"flip": 0.5}, batch_size=4
    )
    result = evaluator.compute_metrics(image_tensor=distilled(), ars_lambda=0.5)
    arms = evaluator.outcome.arms
    with_aug = [
        100 * (s - r) for s, r in zip(arms["syn-aug"].accuracies, arms["rdm-aug"].accuracies, strict=True)
    ]
    assert pytest.approx(sum(with_aug) / 2) == result["with_aug_scores_mean"]
    assert ["with_aug_scores", "without_aug_scores", "ars_list"] == list(rows()[0])
    assert 0 <= result["augmentation_robust_score_mean"] <= 1


def test_the_general_evaluator_returns_accuracies_in_percent():
    evaluator = metrics.GeneralEvaluator(**{**ARGUMENTS, "num_eval": 1}, data_aug_func=None, batch_size=4)
    result = evaluator.compute_metrics(
        image_tensor=distilled(), labels=torch.arange(CLASSES).repeat_interleave(2)
    )
    assert 100 * evaluator.outcome.arms["syn-any"].mean == result["acc_mean"]
    # One value has no standard deviation.
    assert math.isnan(result["acc_std"])


def test_the_first_release_takes_images_by_position_and_returns_the_ratio():
    arguments = {key: ARGUMENTS[key] for key in ARGUMENTS.keys() - {"step_size", "num_workers"}}
    evaluator = compat.Hard_Label_Objective_Metrics(**arguments, data_aug_func=None, aug_params=None)
    result = evaluator.compute_metrics(distilled())
    assert {"hard_recs", "hard_imps", "obj_metrics"} < {key.rsplit("_", 1)[0] for key in result}
    assert ["hard_recs", "hard_imps", "obj_metrics", "lrs"] == list(rows()[0])
    # Its step is half the epochs and one, and its augmentation decides its epochs.
    dsa = {**arguments, "num_epochs": None, "data_aug_func": "dsa", "aug_params": {}}
    recipe = compat.Soft_Label_Objective_Metrics(**dsa)._session.found.values["recipe"]
    assert ({"use": "step", "step_size": 501}, 1000) == (recipe["schedule"], recipe["epochs"])


def test_a_folder_of_pictures_gives_what_its_tensor_gives():
    images = distilled()
    for index, image in enumerate(images):
        folder = Path("pictures", f"{index // 2:05d}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(folder / f"{index % 2}.png")
    arguments = {**ARGUMENTS, "num_eval": 1}
    evaluator = metrics.GeneralEvaluator(**arguments, data_aug_func=None, batch_size=4)
    by_tensor = evaluator.compute_metrics(image_tensor=images)
    assert by_tensor["acc_mean"] == evaluator.compute_metrics(image_path="pictures")["acc_mean"]


def test_images_are_taken_as_normalised_unless_said_otherwise():
    evaluator = metrics.GeneralEvaluator(**{**ARGUMENTS, "image_space": None}, data_aug_func=None)
    real = evaluator._session.real()
    made = evaluator._session._distilled(_images(distilled()))
    assert ImageSpace(kind="normalised", mean=real.mean, std=real.std) == made.space


def _images(tensor: torch.Tensor) -> Any:
    from ddrank_core.compat.evaluate import Images

    return Images(tensor=tensor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_tensor": distilled(1)}, "GeneralEvaluator: labels: 6 for 3 images"),
        ({}, "GeneralEvaluator: give either image_tensor or image_path"),
        ({"image_tensor": distilled().expand(-1, 3, -1, -1)}, "3 channels, but the data set's have 1"),
        ({"image_path": "nowhere"}, "nowhere: no such file"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_line(given, message):
    evaluator = metrics.GeneralEvaluator(**ARGUMENTS, data_aug_func=None)
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        evaluator.compute_metrics(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", ["fast", torch.tensor([0.1, 0.2])])
def test_a_learning_rate_that_is_not_one_number_is_refused(rate):
    evaluator = metrics.GeneralEvaluator(**ARGUMENTS, data_aug_func=None)
    with pytest.raises(ConfigError, match="syn_lr: must be one number"):
        evaluator.compute_metrics(image_tensor=distilled(), syn_lr=rate)


def test_a_dict_in_the_place_of_a_config_is_refused():
    with pytest.raises(ConfigError, match="GeneralEvaluator: config: must be a Config"):
        metrics.GeneralEvaluator(ARGUMENTS)


def test_one_process_is_told_and_several_are_refused(monkeypatch):
    with pytest.warns(UserWarning, match="dist: the run uses one device"):
        metrics.GeneralEvaluator(**ARGUMENTS, data_aug_func=None, dist=True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="dist: a run uses one device, and torchrun started 4 processes"):
        metrics.GeneralEvaluator(**ARGUMENTS, data_aug_func=None, dist=True)


def test_what_cannot_be_done_here_is_refused_when_the_evaluator_is_made():
    with pytest.raises(ConfigError, match=r"^LabelRobustScoreHard: use_zca: images of 128 pixels"):
        metrics.LabelRobustScoreHard(
            dataset="ImageNette", im_size=(128, 128), model_name="ConvNet-5", step_size=5, use_zca=True
        )


# What the READMEs of 0.2 and of 0.1 list, and the constructors of 0.2.0 beside them.
COMMON = """
config dataset real_data_path ipc model_name data_aug_func aug_params optimizer lr_scheduler weight_decay
momentum use_zca num_eval im_size num_epochs num_workers save_path custom_train_trans custom_val_trans device
"""
LATER = "step_size dist random_data_format random_data_path"
TORCHVISION = "stu_use_torchvision tea_use_torchvision teacher_dir soft_label_mode soft_label_criterion"
TEACHER = f"{TORCHVISION} teacher_model_names loss_fn_kwargs"
SIZES = "real_batch_size syn_batch_size"


@pytest.mark.parametrize(
    ("name", "arguments", "asked"),
    [
        ("LabelRobustScoreHard", f"{COMMON} {LATER} {SIZES} use_torchvision eval_full_data", "hard_labels"),
        ("LabelRobustScoreSoft", f"{COMMON} {LATER} {SIZES} {TEACHER} use_aug_for_hard", "soft_labels"),
        ("AugmentationRobustScore", f"{COMMON} {LATER} {TEACHER} label_type batch_size", "soft_labels"),
        ("GeneralEvaluator", f"{COMMON} {TEACHER} step_size use_soft_label batch_size dist", "labels"),
        ("SoftLabelEvaluator", f"{COMMON} {SIZES} {TORCHVISION} temperature default_lr", "soft_labels"),
        ("HardLabelEvaluator", f"{COMMON} {SIZES} use_torchvision default_lr", "hard_labels"),
    ],
)
def test_every_old_argument_is_taken(name, arguments, asked):
    evaluator = getattr(metrics, name)
    assert set(arguments.split()) <= set(inspect.signature(evaluator).parameters)
    assert {"image_tensor", "image_path", asked, "syn_lr"} <= set(
        inspect.signature(evaluator.compute_metrics).parameters
    )
    assert getattr(compat, name) is evaluator


def test_a_config_is_read_from_yaml_and_json_and_takes_the_place_of_the_arguments():
    old = {**LRS_ARGUMENTS, "data_aug_func": None, "num_eval": 3, "custom_val_trans": None}
    old = {key: value for key, value in old.items() if key != "image_space"}
    Path("old.yaml").write_text(yaml.safe_dump(old))
    Path("old.json").write_text(json.dumps(old))
    config = Config.from_file("old.yaml")
    assert config.config == Config.from_file("old.json").config == old
    config.update({"num_epochs": 7})
    assert 7 == config.get("num_epochs")
    values = metrics.LabelRobustScoreHard(config, ipc=99)._session.found.values
    assert (2, 3, 7) == (
        values["distilled"]["ipc"],
        values["protocol"]["repeats"],
        values["recipe"]["epochs"],
    )
    with pytest.raises(ConfigError, match=r"old\.txt: must be a \.yaml, \.yml or \.json file"):
        Config.from_file("old.txt")


@pytest.mark.parametrize("version", ["transforms", "transforms.v2"])
def test_transform_objects_are_read_back_into_augmentations(version):
    from importlib import import_module

    t = import_module(f"torchvision.{version}")
    chain = t.Compose(
        [
            t.RandomCrop(32, padding=4, padding_mode="reflect"),
            t.RandomResizedCrop(32, scale=(0.2, 1.0)),
            t.RandomHorizontalFlip(0.25),
            t.RandomRotation(10),
            t.Normalize(mean=[0.5], std=[0.25]),
        ]
    )
    pipeline = training_pipeline(steps_of(chain, "here"), 32, "here")
    crop, resized, flip, rotation = pipeline.augmentation
    assert {"use": "random-crop", "padding": 4, "mode": "reflect"} == crop
    assert ("random-resized-crop", [0.2, 1.0]) == (resized["use"], resized["scale"])
    assert {"use": "horizontal-flip", "p": 0.25} == flip
    assert ("torchvision/RandomRotation", [-10.0, 10.0]) == (rotation["use"], rotation["degrees"])
    assert ((0.5,), (0.25,)) == pipeline.normalised_with


def test_a_transform_that_a_record_could_not_name_is_refused():
    from torchvision import transforms

    for item in (transforms.Lambda(lambda image: image), torch.nn.Identity()):
        with pytest.raises(ConfigError, match="is not one of torchvision's transforms"):
            steps_of(transforms.Compose([item]), "custom_train_trans")


@pytest.mark.parametrize("demo", ["soft_label", "hard_label", "augmentation"])
def test_a_demo_of_the_readme_runs(demo, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [demo, "--epochs", "2", "--repeats", "1", "--device", "cpu"])
    runpy.run_path(str(DEMOS / f"{demo}.py"), run_name="__main__")
    key = "augmentation_robust_score_mean" if demo == "augmentation" else "label_robust_score_mean"
    assert key in capsys.readouterr().out
    assert 1 == len(rows(f"results/{demo}_scores.csv"))
