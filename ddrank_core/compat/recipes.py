"""The part of an old config that says how to train: labels, loss, augmentation, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddrank_core.compat import names
from ddrank_core.compat.findings import Finding, Kind, Release, Verdict
from ddrank_core.compat.transforms import Pipeline, steps_of, training_pipeline, validation_pipeline
from ddrank_core.errors import ConfigError, PluginError
from ddrank_core.registry import Registry
from ddrank_core.spec import parameters_of

_DSA_KEYS = {
    "flip": "flip",
    "rotate": "rotate",
    "saturation": "saturation",
    "brightness": "brightness",
    "contrast": "contrast",
    "scale": "scale",
    "crop": "crop",
    "cutout": "cutout",
    "prob_flip": "flip",
    "ratio_rotate": "rotate",
    "ratio_scale": "scale",
    "ratio_crop_pad": "crop",
    "ratio_cutout": "cutout",
}
"""Keys of `aug_params` for DSA: those that ddranking reads, and those that its README shows."""

_READ_BY_DSA = ("flip", "rotate", "saturation", "brightness", "contrast", "scale", "crop", "cutout")
_SHARE = {"mixup": ("lambda", "alpha"), "cutmix": ("beta", "beta")}
"""Augmentation -> the key of `aug_params` that ddranking reads, and our parameter."""

_CRITERIA = {
    "kl": ("temperature", "scale_loss"),
    "sce": ("temperature", "scale_loss"),
    "mse_gt": ("mse_weight", "ce_weight"),
}
PLACES = ("root", "path")
"""Parameters of a data set that say where it lies."""

DEFAULT_TEMPERATURE = 1.2
"""Of ddranking's `kl` and `sce`, where none is given."""


class Recipes:
    """Reads the keys of an old config that say how to train.

    `given` are its keys that are not None; what has been read and reported is in `told`.
    """

    side: int
    old_dataset: names.OldDataset | None

    def __init__(
        self,
        given: Mapping[str, Any],
        where: str,
        registry: Registry,
        kind: Kind,
        release: Release,
    ) -> None:
        self.given, self.where, self.registry = given, where, registry
        self.kind: Kind = kind
        self.release: Release = release
        self.values: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.told: set[str] = set()
        self.training, self.validation = Pipeline(), Pipeline()

    # -- reading -------------------------------------------------------------------------------

    def text(self, key: str, default: str | None = None) -> str:
        value = self.given.get(key, default)
        if not isinstance(value, str):
            raise ConfigError(f"{self.where}: {key}: must be text, got {value!r}")
        return value

    def flag(self, key: str) -> bool:
        value = self.given.get(key, False)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.where}: {key}: must be true or false, got {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.given.get(key, default)
        try:
            # PyYAML reads 1e-3 as text.
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{self.where}: {key}: must be a number, got {value!r}") from None

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{self.where}: {key}: must be a whole number above 0, got {value!r}")
        return value

    # -- reporting -----------------------------------------------------------------------------

    def say(self, key: str, verdict: Verdict, text: str, place: str | None = None) -> None:
        self.told.add(key)
        self.findings.append(Finding(key, verdict, text, place))

    def say_if_given(self, key: str, verdict: Verdict, text: str, place: str | None = None) -> None:
        if key in self.given and key not in self.told:
            self.say(key, verdict, text, place)

    # -- the recipe ------------------------------------------------------------------------------

    @property
    def is_soft(self) -> bool:
        """Whether the recipe trains with soft labels."""
        match self.kind:
            case "hard":
                return False
            case "soft":
                return True
            case "augmentation":
                return bool(self.given.get("label_type", "soft") == "soft")
            case "general":
                return self.flag("use_soft_label")

    def recipe(self) -> None:
        """Fill in `recipe` and `hard`."""
        epochs = self.whole("num_epochs", 300)
        mixing = self._data_aug()
        recipe: dict[str, Any] = {**self._labels_and_loss()}
        recipe["augmentation"] = [*self.training.augmentation, *([mixing] if mixing else [])]
        recipe["optimizer"] = self._optimizer()
        recipe["schedule"] = self._schedule(epochs)
        recipe["epochs"] = epochs
        recipe["batch_size"] = self._batch_size()
        self.say_if_given("num_epochs", "kept", "passes over the distilled images", "recipe")
        self.values["recipe"] = recipe
        self._hard(mixing)

    def _hard(self, mixing: dict[str, Any] | None) -> None:
        if self.kind in ("augmentation", "general"):
            self.say_if_given("use_aug_for_hard", "no effect", "this evaluator has no hard-label arm")
            return
        with_mixing = self.kind == "hard" or self.flag("use_aug_for_hard")
        augmentation = [*self.training.augmentation, *([mixing] if mixing and with_mixing else [])]
        if augmentation:
            self.values["hard"] = {"augmentation": augmentation}
        if self.kind == "hard":
            self.say_if_given("use_aug_for_hard", "no effect", "the hard-label evaluator always uses it")
        else:
            self.say_if_given("use_aug_for_hard", "kept", "the augmentation of the hard-label arm", "hard")

    def _batch_size(self) -> int:
        for key in ("batch_size", "syn_batch_size"):
            if key in self.given:
                self.say(key, "kept", "images per step", "recipe")
                return self.whole(key)
        return 256

    # -- labels and loss -------------------------------------------------------------------------

    def _labels_and_loss(self) -> dict[str, Any]:
        self.say_if_given("label_type", "kept", f"{self.given.get('label_type')} labels", "recipe")
        self.say_if_given("use_soft_label", "kept", "soft or hard labels", "recipe")
        if not self.is_soft:
            for key in ("soft_label_mode", "soft_label_criterion", "loss_fn_kwargs", "temperature"):
                self.say_if_given(key, "no effect", "the labels are hard")
            return {"labels": {"use": "hard"}, "loss": {"use": "ce"}}
        mode = self._mode()
        meaning = {"S": "one stored soft label per image", "M": "teachers label every augmented view"}
        if mode == "S" and self.release == "0.2" and self.kind != "general":
            meaning["S"] += "; 0.2 stops when it labels the random images"
            self.say("soft_label_mode", "wrong", meaning["S"], "recipe")
        else:
            self.say("soft_label_mode", "kept", meaning[mode], "recipe")
        return {"labels": {"use": "soft" if mode == "S" else "teacher"}, "loss": self._loss(mode)}

    def _mode(self) -> str:
        mode = self.text("soft_label_mode", "M" if self.kind == "general" else "S")
        if mode not in ("S", "M"):
            raise ConfigError(f"{self.where}: soft_label_mode: must be S or M, got {mode!r}")
        return mode

    def _loss(self, mode: str) -> dict[str, Any]:
        criterion = self.text("soft_label_criterion", "kl")
        if criterion not in _CRITERIA:
            raise ConfigError(
                f"{self.where}: soft_label_criterion: must be {' or '.join(_CRITERIA)}, got {criterion!r}"
            )
        self.say("soft_label_criterion", "kept", f"the loss {criterion}", "recipe")
        loss = {"use": criterion, **self._loss_arguments(criterion)}
        if criterion == "mse_gt" and mode == "S" and loss.get("ce_weight"):
            self.say(
                "soft_label_criterion",
                "wrong",
                "with stored labels its cross-entropy is with the soft logits; here with the hard labels",
                "recipe",
            )
        return loss

    def _loss_arguments(self, criterion: str) -> dict[str, Any]:
        known, arguments = _CRITERIA[criterion], self.given.get("loss_fn_kwargs")
        if arguments is not None:
            if not isinstance(arguments, Mapping) or not set(arguments) <= set(known):
                raise ConfigError(
                    f"{self.where}: loss_fn_kwargs: {criterion} takes {', '.join(known)}, got {arguments!r}"
                )
            self.say("loss_fn_kwargs", "kept", "the loss's parameters", "recipe")
            if "temperature" in self.given and "temperature" not in self.told:
                self.say("temperature", "no effect", "loss_fn_kwargs says it")
        made = {
            key: value if isinstance(value, bool) else float(value)
            for key, value in (arguments or {}).items()
        }
        if "temperature" in known and "temperature" not in made:
            made["temperature"] = self._temperature()
        return made

    def _temperature(self) -> float:
        if "temperature" not in self.given:
            self.say(
                "loss_fn_kwargs",
                "wrong",
                f"no temperature, where 0.2 stops or takes {DEFAULT_TEMPERATURE}",
                "recipe",
            )
            return DEFAULT_TEMPERATURE
        if self.release == "first":
            self.say("temperature", "wrong", f"the first release always uses {DEFAULT_TEMPERATURE}", "recipe")
        elif self.release == "0.2":
            self.say("temperature", "wrong", "0.2 only reads loss_fn_kwargs, and stops without it", "recipe")
        else:
            self.say(
                "temperature", "kept", "the loss's temperature (0.2 no longer reads it, and stops)", "recipe"
            )
        return self.number("temperature", DEFAULT_TEMPERATURE)

    # -- augmentation ----------------------------------------------------------------------------

    def pipelines(self) -> None:
        """Read custom_train_trans and custom_val_trans."""
        for key in ("custom_train_trans", "custom_val_trans"):
            if key not in self.given:
                continue
            where = f"{self.where}: {key}"
            steps = steps_of(self.given[key], where)
            if key == "custom_train_trans":
                pipeline = self.training = training_pipeline(steps, self.side, where)
                self._check_known(pipeline, where)
                self.say(key, "kept", "augmentation, which 0.2 applies to image folders only", "recipe")
            else:
                pipeline = self.validation = validation_pipeline(steps, self.side, where)
                self.say(key, "kept", self._validation_words(), "dataset")
            if pipeline.normalised_with:
                self._check_statistics(key, pipeline.normalised_with)

    def _check_known(self, pipeline: Pipeline, where: str) -> None:
        for item in pipeline.augmentation:
            try:
                self.registry.load("augmentation", item["use"])
            except PluginError as error:
                raise ConfigError(f"{where}: {error}") from error

    def _validation_words(self) -> str:
        resize = self.validation.test_resize
        return "test images have this size already" if resize is None else f"dataset.test_resize: {resize}"

    def _check_statistics(self, key: str, given: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        old = self.old_dataset
        if old is None:
            self.say(
                key, "wrong", "its Normalize: here images are normalised with the data set's own statistics"
            )
        elif old.use == "cifar100":
            self.say(key, "wrong", "its Normalize: here CIFAR-100's own statistics")
        elif given != (old.mean, old.std):
            self.say(
                key,
                "wrong",
                "its Normalize differs from that of the real images; here one for all, the data set's",
            )

    def _data_aug(self) -> dict[str, Any] | None:
        name = self.given.get("data_aug_func")
        parameters = self.given.get("aug_params") or {}
        if name is None:
            self.say_if_given("aug_params", "no effect", "there is no data_aug_func")
            return None
        if name not in ("dsa", *_SHARE):
            raise ConfigError(
                f"{self.where}: data_aug_func: must be dsa, mixup or cutmix, got {name!r}; for whitening "
                "give use_zca, which is fitted on the real training images"
            )
        if not isinstance(parameters, Mapping):
            raise ConfigError(f"{self.where}: aug_params: must be a mapping, got {parameters!r}")
        made = self._dsa(parameters) if name == "dsa" else self._share(name, parameters)
        if "aug_params" not in self.told:
            self.say_if_given("aug_params", "kept", f"the parameters of {name}", "recipe")
        if name == "dsa" or (self.is_soft and self._mode() == "M"):
            self.say("data_aug_func", "kept", name, "recipe")
        else:
            text = f"ddranking's {name} mixes images and not their labels; here both"
            self.say("data_aug_func", "wrong", text, "recipe")
        return made

    def _dsa(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"use": "dsa"}
        for key, value in parameters.items():
            if key not in _DSA_KEYS:
                self.say(f"aug_params.{key}", "no effect", "no parameter of DSA")
                continue
            made[_DSA_KEYS[key]] = self._aug_number(key, value)
            if key not in _READ_BY_DSA:
                self.say(
                    f"aug_params.{key}",
                    "wrong",
                    f"ddranking reads '{_DSA_KEYS[key]}' and stops with a KeyError; here it is that",
                    "recipe",
                )
        return made

    def _share(self, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        theirs, ours = _SHARE[name]
        for key in parameters.keys() - {theirs}:
            self.say(f"aug_params.{key}", "no effect", f"no parameter of {name}")
        if theirs not in parameters:
            self.say("aug_params", "wrong", f"ddranking needs '{theirs}' and stops; here 1", "recipe")
            return {"use": name, ours: 1.0}
        return {"use": name, ours: self._aug_number(theirs, parameters[theirs])}

    def _aug_number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{self.where}: aug_params.{key}: must be a number, got {value!r}")
        return float(value)

    # -- optimiser and schedule ------------------------------------------------------------------

    def _optimizer(self) -> dict[str, Any]:
        name = self.text("optimizer", "sgd").lower()
        if name not in ("sgd", "adam", "adamw"):
            raise ConfigError(f"{self.where}: optimizer: must be sgd, adam or adamw, got {name!r}")
        self.say_if_given("optimizer", "kept", name, "recipe")
        self.say_if_given("weight_decay", "kept", "the optimiser's", "recipe")
        made: dict[str, Any] = {"use": name}
        momentum = self.given.get("momentum")
        if name == "sgd":
            made["momentum"] = self.number("momentum", 0.9)
            self.say_if_given("momentum", "kept", "the optimiser's", "recipe")
        elif isinstance(momentum, (list, tuple)):
            made["betas"] = [float(beta) for beta in momentum]
            self.say("momentum", "kept", "the optimiser's betas", "recipe")
        else:
            self.say_if_given("momentum", "no effect", f"{name} has betas: 0.9 and 0.999, there and here")
        made["weight_decay"] = self.number("weight_decay", 0.0005)
        return made

    def _schedule(self, epochs: int) -> dict[str, Any]:
        name = self.text("lr_scheduler", "step").lower()
        if name in ("step", "steplr"):
            return self._step(epochs)
        self.say_if_given("step_size", "no effect", f"{name} has no steps")
        if name in ("cosineannealing", "cosineannealinglr"):
            self.say("lr_scheduler", "kept", "cosine, to zero at the end", "recipe")
            return {"use": "cosine"}
        if name == "lambda_cos" or (name == "cosine" and self.release == "0.2"):
            self.say(
                "lr_scheduler",
                "wrong",
                f"its '{name}' ends at half the rate; kept, as half-cosine; use cosine to go to zero",
                "recipe",
            )
            return {"use": "half-cosine"}
        if name == "cosine":
            self.say(
                "lr_scheduler",
                "wrong",
                "to zero in 0.1, whose keys these are, and here; 0.2's ends at half the rate (half-cosine)",
                "recipe",
            )
            return {"use": "cosine"}
        raise ConfigError(
            f"{self.where}: lr_scheduler: must be step, cosine, cosineannealing or lambda_cos, got {name!r}"
        )

    def _step(self, epochs: int) -> dict[str, Any]:
        if "step_size" in self.given and self.release == "0.2":
            size = self.whole("step_size")
            self.say("step_size", "kept", "epochs between two steps", "recipe")
            self.say("lr_scheduler", "kept", "step, times 0.1", "recipe")
            return {"use": "step", "step_size": size}
        size = epochs // 2 + 1
        text = f"no step_size, where 0.2 stops; {size}, as in 0.1: half the epochs and one"
        self.say("lr_scheduler", "wrong" if self.release != "first" else "kept", text, "recipe")
        return {"use": "step", "step_size": size}

    def place_of(self, dataset: str) -> str | None:
        """Return the parameter of one of our data sets that says where it lies, if it has one."""
        parameters = self.dataset_parameters(dataset)
        return next((name for name in PLACES if name in parameters), None)

    def dataset_parameters(self, dataset: str) -> set[str]:
        """Return the names of the parameters of one of our data sets."""
        try:
            component = self.registry.load("dataset", dataset)
        except PluginError as error:
            raise ConfigError(f"{self.where}: dataset: {error}") from error
        return {field.name for field in parameters_of(component)}
