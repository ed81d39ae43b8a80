"""An old config, or the arguments of an old evaluator, as one of our run configs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddrank_core.compat import names
from ddrank_core.compat.findings import Kind, Release, Translation
from ddrank_core.compat.recipes import Recipes
from ddrank_core.engine.whitening import MAX_VALUES
from ddrank_core.errors import ConfigError
from ddrank_core.registry import Registry

_ONLY_IN = {
    "0.2": ("loss_fn_kwargs", "step_size", "teacher_model_names", "eval_full_data", "label_type"),
    "0.1": ("temperature", "default_lr"),
}
"""Keys that tell which release a config was written for."""

KNOWN_ACCURACIES = {
    ("ImageNet1K", "ResNet-18-BN"): 0.565,
    ("TinyImageNet", "ResNet-18-BN"): 0.464,
}
"""Accuracies on the whole real data that ddranking 0.2 has a table of, here as fractions.

Source: ddranking 0.2.0, utils/train_and_eval.py, REAL_DATA_ACC_CACHE."""

_SGD = {"use": "sgd", "momentum": 0.9, "weight_decay": 0.0005}


def _full(
    optimizer: Mapping[str, Any], schedule: Mapping[str, Any], epochs: int, rate: float
) -> dict[str, Any]:
    return {"optimizer": {**optimizer}, "schedule": {**schedule}, "epochs": epochs, "learning_rate": rate}


_CIFAR = _full(_SGD, {"use": "step", "step_size": 100}, 200, 0.01)
FULL_RECIPES = {
    **{(data, net): _CIFAR for data in ("CIFAR10", "CIFAR100") for net in ("ConvNet-3", "ConvNet-3-BN")},
    ("TinyImageNet", "ConvNet-4-BN"): _full(_SGD, {"use": "step", "step_size": 50}, 100, 0.01),
    ("TinyImageNet", "ResNet-18-BN"): _full(
        {"use": "adamw", "weight_decay": 0.01}, {"use": "half-cosine"}, 100, 0.01
    ),
    ("ImageNet1K", "ResNet-18-BN"): _full(
        {**_SGD, "weight_decay": 0.0001}, {"use": "step", "step_size": 30}, 90, 0.1
    ),
}
"""How to train on the whole real data, by data set and network.

Source: ddranking 0.2.0, utils/train_and_eval.py, REAL_DATA_TRAINING_CONFIG. It makes the optimiser and the
schedule of these, but trains for the method's own number of epochs."""

MOST_EPOCHS = 200
"""On the whole real data, where ddranking has no recipe."""

_WITHOUT_MEANING = {
    "num_workers": "data lives on the device; there are no worker processes",
    "device": "the device is not part of a config: ddrank run --device",
    "random_data_path": "random images are drawn in memory, from the run's own seed",
    "random_data_format": "random images are drawn in memory, pixel for pixel as they are in the data set",
    "save_path": "every run leaves a folder with its record and its tables as CSV",
}


def translate(
    old: Mapping[str, Any],
    where: str,
    registry: Registry,
    kind: Kind | None = None,
    release: Release | None = None,
) -> Translation:
    """Return what an old config says, as the plain values of one of ours, and a finding for each key.

    Paths stay as they are. Keys with the value None count as not given.

    Raises:
        ConfigError: one line, if the config is not an evaluator's, or cannot be read.
    """
    given = {str(key): value for key, value in old.items() if value is not None}
    if missing := [key for key in ("dataset", "model_name", "ipc") if key not in given]:
        raise ConfigError(
            f"{where}: {missing[0]}: missing; not a config of one of ddranking's evaluators (those of the "
            "distillation methods in its repository are something else)"
        )
    release = release or release_of(given)
    return _Translator(given, where, registry, kind or kind_of(given), release).translate()


def kind_of(old: Mapping[str, Any]) -> Kind:
    """Return which evaluator a config is for; ddranking's configs do not say it themselves."""
    if "label_type" in old:
        return "augmentation"
    if "use_soft_label" in old:
        return "general"
    return "soft" if {"soft_label_mode", "soft_label_criterion", "teacher_dir"} & old.keys() else "hard"


def release_of(old: Mapping[str, Any]) -> Release:
    """Return whose meaning of the keys a config has: 0.2's if it has a key that only 0.2 has, else 0.1's."""
    return "0.2" if set(_ONLY_IN["0.2"]) & old.keys() else "0.1"


class _Translator(Recipes):
    """Goes through the keys once; what a key comes to is in `values`, what is said of it in `findings`."""

    def translate(self) -> Translation:
        self._dataset()
        self._student()
        self._teachers()
        self.recipe()
        self._whitening()
        self._full_data()
        self._protocol()
        self._rest()
        order = ("name", "dataset", "distilled", "student", "teachers", "recipe", "hard", "full_data")
        ordered = {field: self.values[field] for field in order if field in self.values}
        return Translation(
            kind=self.kind,
            release=self.release,
            # Values of its own: tables and lists are shared above.
            values=json.loads(json.dumps({**ordered, **self.values})),
            findings=tuple(self.findings),
            save_path=self._save_path(),
        )

    # -- data --------------------------------------------------------------------------------

    def _dataset(self) -> None:
        name = self.text("dataset")
        known = names.dataset(name, self.registry, self.where)
        chosen: dict[str, Any] = {"use": known.use if known else name}
        if known and known.use == "cifar100":
            self.say(
                "dataset", "wrong", "ddranking normalises CIFAR-100 with CIFAR-10's statistics; here its own"
            )
        else:
            self.say("dataset", "kept", f"the data set {chosen['use']}", "dataset")
        if "real_data_path" in self.given:
            if place := self.place_of(chosen["use"]):
                chosen[place] = self.text("real_data_path")
                text = f"dataset.{place}; nothing is downloaded unless asked"
                self.say("real_data_path", "kept", text, "dataset")
            else:
                self.say("real_data_path", "no effect", f"{chosen['use']} needs no folder")
        self.old_dataset, self.side = known, self._side(known)
        if known and known.resizes and self.side != known.side:
            chosen["size"] = self.side
        self.pipelines()
        if self.validation.test_resize is not None:
            if "test_resize" in self.dataset_parameters(chosen["use"]):
                chosen["test_resize"] = self.validation.test_resize
            else:
                text = (
                    f"{chosen['use']} cannot resize its test images to {self.validation.test_resize} pixels"
                )
                self.say("custom_val_trans", "left out", text, "dataset")
        ipc = self.whole("ipc")
        student = self.text("model_name")
        self.values["name"] = _name(name, student, ipc, self.text("save_path", ""))
        self.values["dataset"] = chosen
        self.values["distilled"] = {"ipc": ipc}
        self.say("ipc", "kept", "checked against the distilled set", "distilled")

    def _side(self, known: names.OldDataset | None) -> int:
        size = self.given.get("im_size")
        if size is None:
            return known.side if known else 0
        if not isinstance(size, (list, tuple)) or len(size) != 2 or size[0] != size[1]:
            raise ConfigError(f"{self.where}: im_size: must be two equal numbers, got {size!r}")
        if known and not known.resizes and size[0] != known.side:
            raise ConfigError(
                f"{self.where}: im_size: {size[0]}, but {self.given['dataset']}'s images have {known.side} "
                "pixels, and ddranking does not resize them"
            )
        self.say("im_size", "kept", "the images' own size", "dataset")
        return int(size[0])

    # -- networks ----------------------------------------------------------------------------

    def _student(self) -> None:
        key = "use_torchvision" if "use_torchvision" in self.given else "stu_use_torchvision"
        name = self.text("model_name")
        self.values["student"] = self.network(name, key, "model_name")
        self.say("model_name", "kept", f"the student {_shown(self.values['student'])}", "student")

    def network(self, name: str, flag: str, key: str) -> Any:
        use_torchvision = self.flag(flag)
        found = names.network(name, use_torchvision, self.side, self.registry, self.where, key)
        if flag in self.given:
            changes = isinstance(found, dict) and found["use"].startswith("torchvision/")
            if use_torchvision and not changes:
                self.say(flag, "no effect", f"{name} is not one of the networks that it changes")
            else:
                self.say(flag, "kept", f"{'torchvision' if changes else 'the DC family'}'s {name}")
        if name.startswith("ConvNet") and name.rpartition("-")[2] in ("GN", "LN", "NN", "IN"):
            self.say(
                key,
                "wrong",
                f"ddranking gives {name} instance norm whatever it is called; here it is what it says",
            )
        return found

    def _teachers(self) -> None:
        keys = ("teacher_dir", "teacher_model_names", "tea_use_torchvision")
        if not self.is_soft:
            for key in keys:
                self.say_if_given(key, "no effect", "hard labels need no teacher")
            return
        listed = self.given.get("teacher_model_names", [self.text("model_name")])
        if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
            raise ConfigError(f"{self.where}: teacher_model_names: must be a list of names, got {listed!r}")
        folder = self.given.get("teacher_dir")
        teachers = []
        for name in listed:
            found = self.network(name, "tea_use_torchvision", "teacher_model_names")
            path = (
                None
                if folder is None
                else f"{str(folder).rstrip('/')}/{self.given['dataset']}/{name}/ckpt_best.pt"
            )
            shown = {"use": found} if isinstance(found, str) else dict(found)
            teachers.append({**shown, **({} if path is None else {"checkpoint": path})})
        self.values["teachers"] = teachers
        if folder is None:
            self.say("teacher_dir", "wrong", "not given: the teacher is trained here, with full_data.recipe")
        else:
            self.say("teacher_dir", "kept", "DATASET/MODEL/ckpt_best.pt in it", "teachers")
        if "teacher_model_names" in self.given:
            self.say("teacher_model_names", "kept", "one teacher, or the mean of several", "teachers")
        elif self.release != "first":
            self.say(
                "teacher_model_names", "wrong", "missing, where 0.2 stops; the student's network, as in 0.1"
            )

    # -- the whole real data -------------------------------------------------------------------

    def _whitening(self) -> None:
        if not self.flag("use_zca"):
            self.say_if_given("use_zca", "kept", "no whitening")
            return
        if 3 * self.side**2 > MAX_VALUES:
            self.say(
                "use_zca",
                "left out",
                f"images of {self.side} pixels are too large to be whitened; ddranking stops at it too",
                "whitening",
            )
            return
        self.values["whitening"] = {"eps": 0.1}
        self.say("use_zca", "kept", "fitted on the real training images, as there", "whitening")

    def _full_data(self) -> None:
        evaluates = self.flag("eval_full_data")
        self._default_lr()
        if self.kind in ("augmentation", "general"):
            self.say_if_given(
                "eval_full_data", "no effect", "this evaluator does not use the whole real data"
            )
            self.say_if_given(
                "real_batch_size", "no effect", "this evaluator does not use the whole real data"
            )
            if self.trains_teachers():
                self.values["full_data"] = {"recipe": self.full_recipe()}
            return
        key = (self.text("dataset"), self.text("model_name"))
        full: dict[str, Any] = {}
        if not evaluates and self.release == "0.2" and key in KNOWN_ACCURACIES:
            full = {
                "accuracy": KNOWN_ACCURACIES[key],
                "source": "ddranking 0.2.0, REAL_DATA_ACC_CACHE, which names no source",
            }
            self.say(
                "eval_full_data", "wrong", "ddranking's table gives percent, and names no source", "full_data"
            )
        elif not evaluates and self.release == "0.2":
            self.say(
                "eval_full_data",
                "wrong",
                "false, and ddranking has no accuracy for these: it stops; trained here",
            )
        elif "eval_full_data" in self.given:
            self.say("eval_full_data", "kept", "trained here", "full_data")
        if not full or self.trains_teachers():
            full["recipe"] = self.full_recipe()
        self.values["full_data"] = full

    def _default_lr(self) -> None:
        if self.release == "0.2":
            text = "0.2 reads it and does not use it"
        elif self.kind in ("augmentation", "general"):
            text = "this evaluator does not use the whole real data"
        else:
            text = (
                "0.1 trains on the whole real data with it; here that arm chooses its rate, as every arm does"
            )
        self.say_if_given("default_lr", "no effect", text)

    def trains_teachers(self) -> bool:
        return any("checkpoint" not in teacher for teacher in self.values.get("teachers", ()))

    def full_recipe(self) -> dict[str, Any]:
        """Return how to train on the whole real data."""
        self.say_if_given("real_batch_size", "kept", "images per step on the whole real data", "full_data")
        batch = {"batch_size": self.whole("real_batch_size", self.whole("batch_size", 256))}
        known = FULL_RECIPES.get((self.text("dataset"), self.text("model_name")))
        if known is not None:
            return {**known, **batch}
        epochs = min(self.whole("num_epochs", 300), MOST_EPOCHS)
        step = {"use": "step", "step_size": max(1, epochs // 2)}
        return {**_full(_SGD, step, epochs, 0.01), **batch}

    # -- how it is run -------------------------------------------------------------------------

    def _protocol(self) -> None:
        repeats = self.whole("num_eval", 5)
        self.values["protocol"] = {"use": "strict", "repeats": repeats}
        self.say_if_given("num_eval", "kept", f"{repeats} repeats", "protocol")
        scores = {
            "hard": ["hlr", "ior", "ior_hlr", "lrs"],
            "soft": ["hlr", "ior", "ior_hlr", "lrs"],
            "augmentation": ["ars"],
            "general": ["ior"],
        }
        self.values["scores"] = scores[self.kind]

    def _rest(self) -> None:
        for key, why in _WITHOUT_MEANING.items():
            self.say_if_given(key, "no effect", why)
        if self.given.get("random_data_format") == "image" and self.text("dataset") in (
            "CIFAR10",
            "CIFAR100",
        ):
            self.say(
                "random_data_format", "wrong", "ddranking saves them as JPEG, which loses detail; not here"
            )
        if self.flag("dist"):
            self.say("dist", "no effect", "a run uses one device; start it without torchrun")
        else:
            self.say_if_given("dist", "no effect", "a run uses one device")
        for key in self.given.keys() - self.told:
            self.say(key, "no effect", f"ddranking {self.release} has no such key")

    def _save_path(self) -> str:
        ending = {"augmentation": "aug_scores", "general": "eval_scores"}.get(self.kind, "obj_scores")
        default = (
            f"./results/{self.text('dataset')}/{self.text('model_name')}/ipc{self.whole('ipc')}/{ending}.csv"
        )
        return self.text("save_path", default)


def _name(dataset: str, model: str, ipc: int, save_path: str) -> str:
    """Return a name for the run: the CSV's, where that is a plain word, and what is evaluated."""
    method = save_path.rpartition("/")[2].partition(".")[0]
    parts = [method] if method.isalnum() else []
    return "-".join([*parts, dataset.lower(), model.lower().replace("/", "-"), f"ipc{ipc}"])


def _shown(network: Any) -> str:
    return network if isinstance(network, str) else ", ".join(f"{k}: {v}" for k, v in network.items())
