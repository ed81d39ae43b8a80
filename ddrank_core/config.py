"""A run config: YAML in, typed and frozen objects out, with one line for whatever is wrong.

Nothing here imports torch; what needs the data itself is checked when the data is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

from ddrank_core import yaml
from ddrank_core.errors import ConfigError, nearest
from ddrank_core.protocols import (
    Architecture,
    Augmentation,
    Dataset,
    LabelMapping,
    Loss,
    Method,
    Optimizer,
    Schedule,
    Selection,
)
from ddrank_core.registry import Registry
from ddrank_core.spec import component, parameter
from ddrank_core.structure import Chosen, Structurer, plain

ScoreName = Literal["hlr", "ior", "ior_hlr", "lrs", "ars"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)
Precision = Literal["fp32", "tf32", "bf16"]


def _name_fault(name: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return None
    return f"must be letters, digits, '.', '_' and '-' (at most 100), got {name!r}"


def _not_empty(values: Sequence[object]) -> str | None:
    return None if values else "must not be empty"


def rates_fault(rates: Sequence[float] | None) -> str | None:
    """Return what is wrong with learning rates to try, if anything is."""
    if rates is None:
        return None
    if not rates:
        return "must not be empty"
    if any(not 0 < rate < float("inf") for rate in rates):
        return "every rate must be greater than 0"
    return "the same rate stands twice" if len(set(rates)) != len(rates) else None


@component
class DistilledRef:
    """Which distilled set is evaluated."""

    path: Path = parameter("a distilled set, as `ddrank import` and `ddrank distill` write it")
    views: Path | None = parameter(
        "its stored views with their soft labels, for the labels stored-views", default=None
    )
    ipc: int | None = parameter("images per class, checked against the file", default=None, minimum=1)


@component
class Recipe:
    """A method's own way to train on its images."""

    labels: Chosen[LabelMapping] = parameter("what each image is trained towards")
    loss: Chosen[Loss] = parameter("compares the student's logits with the targets")
    augmentation: tuple[Chosen[Augmentation], ...] = parameter("applied in order", default=())
    optimizer: Chosen[Optimizer] = parameter("the optimiser; the learning rate is the protocol's")
    schedule: Chosen[Schedule] = parameter("how the learning rate changes over the epochs")
    epochs: int = parameter("passes over the distilled images", minimum=1)
    batch_size: int = parameter("images per step", default=256, minimum=1)
    micro_batch: int | None = parameter(
        "images per forward pass, where a batch does not fit: gradients add up", default=None, minimum=1
    )


@component
class Validation:
    """What is done to validation and test images before a network is asked about them."""

    augmentation: tuple[Chosen[Augmentation], ...] = parameter("applied in order", default=())


@component
class Whitening:
    """ZCA whitening, fitted on the real training set: the whole run then works on whitened images."""

    eps: float = parameter("added to the variances; MTT's and its followers' is 0.1", default=0.1, above=0)


@component
class HardRecipe:
    """How the hard-label arm of the distilled set differs from the recipe."""

    augmentation: tuple[Chosen[Augmentation], ...] = parameter("applied in order", default=())


@component
class FullRecipe:
    """How a network is trained on the whole real training set, with hard labels and cross-entropy."""

    augmentation: tuple[Chosen[Augmentation], ...] = parameter("applied in order", default=())
    optimizer: Chosen[Optimizer] = parameter("the optimiser")
    schedule: Chosen[Schedule] = parameter("how the learning rate changes over the epochs")
    epochs: int = parameter("passes over the real training images", minimum=1)
    batch_size: int = parameter("images per step", default=256, minimum=1)
    micro_batch: int | None = parameter(
        "images per forward pass, where a batch does not fit: gradients add up", default=None, minimum=1
    )
    learning_rate: float = parameter("the rate of a teacher that is trained here", default=0.01, above=0)
    learning_rates: tuple[float, ...] | None = parameter(
        "what the arm full-hard tries, one or more; the protocol's where not given",
        default=None,
        check=rates_fault,
    )


@component
class FullData:
    """What a student reaches on the whole real training set: given with its source, or trained here."""

    accuracy: float | None = parameter(
        "a known test accuracy, a fraction", default=None, minimum=0, maximum=1
    )
    source: str | None = parameter("where the known accuracy is from", default=None)
    recipe: FullRecipe | None = parameter("how to train it here, and teachers too", default=None)


@component
class Teacher:
    """A network that gives soft labels: read from a checkpoint, or trained on the real training set."""

    network: Chosen[Architecture] = parameter("the network")
    checkpoint: Path | None = parameter(
        "its weights, or a folder with <dataset>/<network>/ckpt_best.pt; trained here where not given",
        default=None,
    )
    accuracy: float | None = parameter(
        "its known test accuracy, a fraction; checked on real training images",
        default=None,
        minimum=0,
        maximum=1,
    )

    @property
    def is_trained_here(self) -> bool:
        """Return whether it has no weights yet, neither a checkpoint's nor its library's."""
        return self.checkpoint is None and not getattr(self.network.component, "pretrained", False)


@component
class Student:
    """One of several students: a network, and what it reaches on the whole real training set."""

    network: Chosen[Architecture] = parameter("the network that its trials train")
    full_data: FullData | None = parameter("the run's own where not given", default=None)


@component
class Weights:
    """The weights of the two combined scores."""

    lrs: float = parameter("w of LRS: the share of IOR", default=0.5, minimum=0, maximum=1)
    ars: float = parameter("g of ARS: the share of the augmented arms", default=0.5, minimum=0, maximum=1)


@component
class RunConfig:
    """One evaluation of one distilled set."""

    name: str = parameter("names the run folder", check=_name_fault)
    dataset: Chosen[Dataset] = parameter("the real data set")
    distilled: DistilledRef = parameter("the distilled set")
    student: Chosen[Architecture] = parameter("the network that every trial trains")
    students: tuple[Student, ...] = parameter(
        "instead of student: several networks, each of them evaluated", default=()
    )
    teachers: tuple[Teacher, ...] = parameter("networks that give soft labels", default=())
    recipe: Recipe = parameter("the method's own way to train on its images")
    hard: HardRecipe = parameter("the hard-label arm of the distilled set", default=HardRecipe())
    full_data: FullData = parameter("the real training set as a whole", default=FullData())
    whitening: Whitening | None = parameter("ZCA whitening of every image of the run", default=None)
    validation: Validation = parameter("validation and test images", default=Validation())
    protocol: Chosen[Selection] = parameter("how learning rate and epoch are chosen")
    scores: tuple[ScoreName, ...] = parameter("what to report", default=SCORES, check=_not_empty)
    weights: Weights = parameter("weights of the combined scores", default=Weights())
    seed: int = parameter("seeds weights, order and augmentation", default=0, minimum=0, below=2**63)
    subset_seed: int | None = parameter(
        "seeds the random arms' choice of images; the seed where not given",
        default=None,
        minimum=0,
        below=2**63,
    )
    precision: Precision = parameter(
        "of forward and backward passes in training; fp32: without TF32. tf32 and bf16 need a CUDA device",
        default="fp32",
    )

    def each_student(self) -> tuple[RunConfig, ...]:
        """Return one config for each student, itself where there is one."""
        return tuple(self._of(student) for student in self.students) or (self,)

    def _of(self, student: Student) -> RunConfig:
        changes: dict[str, Any] = {"student": student.network, "students": ()}
        if student.full_data is not None:
            changes["full_data"] = student.full_data
        evolved: RunConfig = attrs.evolve(self, **changes)  # type: ignore[misc]  # mypy loses attrs here
        return evolved

    def with_teacher_files(self) -> RunConfig:
        """Return the config with the files of those teachers whose folder it gives."""
        teachers = tuple(_with_file(teacher, self.dataset.use) for teacher in self.teachers)
        evolved: RunConfig = attrs.evolve(self, teachers=teachers)  # type: ignore[misc]  # as in `_of`
        return evolved

    def resolved(self, path: Callable[[Path], str] = str) -> dict[str, Any]:
        """Return the config with every default filled in, as plain JSON values."""
        values: dict[str, Any] = plain(self, path)
        del values["student" if self.students else "students"]
        if self.students:
            values["students"] = [
                {**plain(student.network, path), "full_data": plain(student.full_data, path)}
                for student in self.students
            ]
        values["teachers"] = [
            {
                **plain(teacher.network, path),
                "checkpoint": plain(teacher.checkpoint, path),
                "accuracy": teacher.accuracy,
            }
            for teacher in self.teachers
        ]
        return values

    def digest(self) -> str:
        """Return the SHA-256 of the resolved config, hexadecimal, whatever folder it is used from."""
        values = self.resolved(os.path.abspath)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@component
class DistillConfig:
    """One distillation: which data set, with what, into how many images per class."""

    name: str = parameter("names the run folder", check=_name_fault)
    dataset: Chosen[Dataset] = parameter("the real data set")
    method: Chosen[Method] = parameter("the distillation method")
    student: Chosen[Architecture] = parameter("the network that the method distils with")
    ipc: int = parameter("images per class", minimum=1)
    seed: int = parameter("seeds every draw", default=0, minimum=0, below=2**63)
    output: Path = parameter("the file to write (.safetensors)")


@component
class TeacherConfig:
    """One network for `ddrank teacher train`: trained on a whole real training set with hard labels."""

    name: str = parameter("names the checkpoint", check=_name_fault)
    dataset: Chosen[Dataset] = parameter("the real data set")
    network: Chosen[Architecture] = parameter("the network")
    recipe: FullRecipe | None = parameter(
        "how to train it; not given, its library's pretrained weights are kept as they are", default=None
    )
    whitening: Whitening | None = parameter("ZCA whitening of every image", default=None)
    seed: int = parameter("seeds weights, order and augmentation", default=0, minimum=0, below=2**63)
    precision: Precision = parameter(
        "of forward and backward passes in training; fp32: without TF32. tf32 and bf16 need a CUDA device",
        default="fp32",
    )


def load_run(path: Path, registry: Registry, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override, structure and cross-check a run config.

    Raises:
        ConfigError: one line that names the file and the field.
        PluginError: if a component's plugin is broken.
    """
    return run_from(_values(path, overrides, RunConfig), registry, path.parent, str(path))


def run_from(values: Mapping[str, Any], registry: Registry, folder: Path, where: str) -> RunConfig:
    """Structure and cross-check a run config's plain values; relative paths in it start at `folder`.

    Raises:
        ConfigError: one line that names `where` and the field.
        PluginError: if a component's plugin is broken.
    """
    _check_students(values, where)
    config: RunConfig = _Structurer(registry, folder).structure(_in_full(values), RunConfig, where)
    _check_accuracies(config, where)
    for index, one in enumerate(config.each_student()):
        # What is wrong with the first student alone is mostly wrong with the whole config.
        _cross_check(one, f"{where}: students[{index}]" if index else where)
    return config.with_teacher_files()


def load_distill(path: Path, registry: Registry, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read, override and structure a distillation config.

    Raises:
        ConfigError: one line that names the file and the field.
    """
    values = _values(path, overrides, DistillConfig)
    config: DistillConfig = _Structurer(registry, path.parent).structure(values, DistillConfig, str(path))
    if config.output.suffix != ".safetensors":
        raise ConfigError(f"{path}: output: must end in .safetensors, got '{config.output.name}'")
    return config


def load_teacher(path: Path, registry: Registry, overrides: Sequence[str] = ()) -> TeacherConfig:
    """Read, override, structure and check a config of `ddrank teacher train`.

    Raises:
        ConfigError: one line that names the file and the field.
    """
    values = _values(path, overrides, TeacherConfig)
    _augmentation_list(values, ("recipe",))
    config: TeacherConfig = _Structurer(registry, path.parent).structure(values, TeacherConfig, str(path))
    if config.recipe is None and not getattr(config.network.component, "pretrained", False):
        raise ConfigError(f"{path}: recipe: missing; {config.network.use} has no pretrained weights to keep")
    if config.recipe is not None and config.recipe.learning_rates is not None:
        raise ConfigError(
            f"{path}: recipe.learning_rates: is for the arm full-hard of a run; use recipe.learning_rate"
        )
    return config


class _Structurer(Structurer):
    """Knows the one place where a config's shape differs from its type: a teacher's flat mapping."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        super().__init__(registry, folder)
        self._converter.register_structure_hook(Teacher, self._teacher)
        self._converter.register_structure_hook(Student, self._student)

    def _student(self, value: Any, _: Any) -> Student:
        if not isinstance(value, Mapping):
            return Student(network=self.chosen("architecture", value))
        network = {key: item for key, item in value.items() if key != "full_data"}
        shaped = {"full_data": value.get("full_data")}
        _augmentation_list(shaped, ("full_data", "recipe"))
        given = shaped["full_data"]
        full_data = None if given is None else self.field("full_data", given, FullData)
        return Student(network=self.chosen("architecture", network), full_data=full_data)

    def _teacher(self, value: Any, _: Any) -> Teacher:
        if not isinstance(value, Mapping):
            return Teacher(network=self.chosen("architecture", value))
        own = {"checkpoint": Path | None, "accuracy": float | None}
        network = {key: item for key, item in value.items() if key not in own}
        given = {key: self.field(key, value.get(key), cls) for key, cls in own.items()}
        return Teacher(network=self.chosen("architecture", network), **given)


def _values(path: Path, overrides: Sequence[str], cls: type) -> dict[str, Any]:
    values = yaml.read(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of {', '.join(f.name for f in attrs.fields(cls))}")
    for override in overrides:
        _override(values, override)
    values.setdefault("name", path.stem)
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one `recipe.epochs=50` to plain config values, in place."""
    field, equals, text = override.partition("=")
    steps = [step.strip() for step in field.split(".")]
    if not equals or not all(steps):
        raise ConfigError(f"--set {override}: must look like field=value, such as recipe.epochs=50")
    place: Any = values
    for step in steps[:-1]:
        place = _enter(place, step, override)
    key: Any = _key(place, steps[-1], override)
    place[key] = yaml.parse(text, f"--set {override}")


def _enter(place: Any, step: str, override: str) -> Any:
    """Return the mapping or list at `step` of `place`, made or written out where it is short or missing."""
    key: Any = _key(place, step, override)
    inner = place[key] if isinstance(place, list) else place.get(key)
    if inner is None:
        inner = place[key] = {}
    if isinstance(inner, str):
        # `loss: ce` is short for `loss: {use: ce}`; setting a parameter writes it out.
        inner = place[key] = {"use": inner}
    if not isinstance(inner, (dict, list)):
        raise ConfigError(f"--set {override}: '{step}' is {inner!r}, which has no fields")
    return inner


def _key(place: Any, step: str, override: str) -> str | int:
    if not isinstance(place, list):
        return step
    if not (step.isascii() and step.isdigit()) or int(step) >= len(place):
        last = f"0 to {len(place) - 1}" if place else "none, for it is empty"
        raise ConfigError(f"--set {override}: '{step}' is not a position in the list ({last})")
    return int(step)


def _check_students(values: Mapping[str, Any], where: str) -> None:
    if "student" in values and "students" in values:
        raise ConfigError(f"{where}: students: give either student or students")
    students = values.get("students", ["one"])
    if not isinstance(students, list) or not students:
        raise ConfigError(f"{where}: students: must be a list of at least one architecture")


def _check_accuracies(config: RunConfig, where: str) -> None:
    if config.full_data.accuracy is None:
        return
    for index, student in enumerate(config.students if len(config.students) > 1 else ()):
        if student.full_data is None:
            raise ConfigError(
                f"{where}: students[{index}].full_data: missing; full_data.accuracy is one network's, so "
                "give each student its own, or a full_data.recipe to train them here"
            )


def _in_full(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write out what a config may leave short: the default protocol, one augmentation for a list of one."""
    shaped = dict(values)
    if "students" in values:
        first = values["students"][0]
        bare = {k: v for k, v in first.items() if k != "full_data"} if isinstance(first, Mapping) else first
        shaped["student"] = bare
    protocol = values.get("protocol", {})
    if isinstance(protocol, Mapping) and "use" not in protocol:
        shaped["protocol"] = {"use": "strict", **protocol}
    for path in (("recipe",), ("hard",), ("validation",), ("full_data", "recipe")):
        _augmentation_list(shaped, path)
    return shaped


def _augmentation_list(values: dict[str, Any], path: Sequence[str]) -> None:
    place: Any = values
    for step in path:
        inner = place.get(step)
        if not isinstance(inner, Mapping):
            return
        place[step] = dict(inner)
        place = place[step]
    augmentation = place.get("augmentation")
    if isinstance(augmentation, (str, Mapping)):
        place["augmentation"] = [augmentation]


def _cross_check(config: RunConfig, where: str) -> None:
    """Refuse what is right field by field and wrong together."""
    labels, loss = config.recipe.labels, config.recipe.loss
    gives_soft = getattr(labels.component, "gives_soft", False)
    if getattr(loss.component, "needs_soft", False) and not gives_soft:
        raise ConfigError(
            f"{where}: recipe.loss: {loss.use} needs soft labels and recipe.labels: {labels.use} gives none; "
            "use the labels soft or teacher, or the loss ce"
        )
    if getattr(labels.component, "needs_teacher", False) and not config.teachers:
        raise ConfigError(f"{where}: teachers: recipe.labels: {labels.use} needs at least one teacher")
    if getattr(labels.component, "needs_stored_soft", False) and not config.teachers and _uses_random(config):
        raise ConfigError(
            f"{where}: teachers: recipe.labels: {labels.use} needs a teacher, to label the random real "
            "images that the scores compare with"
        )
    _check_full_data(config, where)
    _check_files(config, where)
    _check_mixing(config, where)
    _check_views(config, where)
    if len(set(config.scores)) != len(config.scores):
        raise ConfigError(f"{where}: scores: the same score is asked for twice")


def _check_mixing(config: RunConfig, where: str) -> None:
    full = config.full_data.recipe
    chains = {
        "recipe": config.recipe.augmentation,
        "hard": config.hard.augmentation,
        "full_data.recipe": full.augmentation if full else (),
    }
    for path, chain in chains.items():
        mixing = [chosen.use for chosen in chain if getattr(chosen.component, "mixes", False)]
        if len(mixing) > 1:
            both = " and ".join(mixing)
            raise ConfigError(f"{where}: {path}.augmentation: {both} both mix images; use one of them")
    for chosen in config.validation.augmentation:
        if getattr(chosen.component, "mixes", False):
            raise ConfigError(
                f"{where}: validation.augmentation: {chosen.use} mixes images, which then have no one class"
            )


def _check_views(config: RunConfig, where: str) -> None:
    """Check what replaying stored views asks of the rest of the config."""
    labels = config.recipe.labels
    if not getattr(labels.component, "replays_views", False):
        if config.distilled.views is not None:
            raise ConfigError(
                f"{where}: distilled.views: recipe.labels: {labels.use} does not use them; "
                "leave them out, or use the labels stored-views"
            )
        return
    if config.distilled.views is None:
        raise ConfigError(f"{where}: distilled.views: missing; recipe.labels: {labels.use} replays them")
    if any(chosen.use != "none" for chosen in config.recipe.augmentation):
        raise ConfigError(
            f"{where}: recipe.augmentation: must be empty, for recipe.labels: {labels.use} replays views "
            "that have been augmented"
        )
    if "ars" in config.scores:
        raise ConfigError(
            f"{where}: scores: ars compares a recipe with and without its augmentation, which "
            f"recipe.labels: {labels.use} has none of; leave it out"
        )
    if not config.teachers and _uses_random(config):
        raise ConfigError(
            f"{where}: teachers: recipe.labels: {labels.use} needs a teacher, to label the views of the "
            "random real images that the scores compare with"
        )


def _uses_random(config: RunConfig) -> bool:
    return bool(set(config.scores) - {"hlr"})


def _check_full_data(config: RunConfig, where: str) -> None:
    full = config.full_data
    if full.accuracy is not None and not full.source:
        known = f"the accuracy {full.accuracy:g}"
        raise ConfigError(f"{where}: full_data.source: missing; say where {known} is from")
    if full.accuracy is None and full.source:
        raise ConfigError(f"{where}: full_data.accuracy: missing, though full_data.source is given")
    needs_accuracy = bool(set(config.scores) & {"hlr", "ior_hlr", "lrs"})
    if needs_accuracy and full.accuracy is None and full.recipe is None:
        raise ConfigError(
            f"{where}: full_data: give an accuracy with its source, or a recipe to train it here; "
            f"the scores {', '.join(config.scores)} need it"
        )
    untrained = any(teacher.is_trained_here for teacher in config.teachers)
    if untrained and full.recipe is None:
        raise ConfigError(
            f"{where}: full_data.recipe: missing; a teacher without a checkpoint is trained with it"
        )


def _check_files(config: RunConfig, where: str) -> None:
    for index, teacher in enumerate(config.teachers):
        _check_checkpoint(teacher, config.dataset.use, f"{where}: teachers[{index}].checkpoint")
    if config.distilled.views is not None and not config.distilled.views.is_file():
        raise ConfigError(f"{where}: distilled.views: no such file: {config.distilled.views}")
    if not config.distilled.path.is_file():
        hint = nearest(config.distilled.path.name, _siblings(config.distilled.path))
        raise ConfigError(
            f"{where}: distilled.path: no such file: {config.distilled.path}{hint}; "
            "'ddrank import' makes one from what a method published"
        )


_CHECKPOINT = "ckpt_best.pt"


def _check_checkpoint(teacher: Teacher, dataset: str, where: str) -> None:
    given = teacher.checkpoint
    if given is None or given.is_file():
        return
    if not given.is_dir():
        raise ConfigError(f"{where}: no such file: {given}")
    if not (found := _in_teacher_folder(given, dataset, teacher.network.use)):
        there = sorted(f"{f.parent.parent.name}/{f.parent.name}" for f in given.glob(f"*/*/{_CHECKPOINT}"))
        listed = f"it has {', '.join(there[:5])}" if there else "it has none for any data set"
        raise ConfigError(
            f"{where}: {given} has no <dataset>/<network>/{_CHECKPOINT} for {dataset} and "
            f"{teacher.network.use}; {listed}"
        )
    if len(found) > 1:
        raise ConfigError(f"{where}: {' and '.join(map(str, found[:2]))} may both be meant; name one of them")


def _with_file(teacher: Teacher, dataset: str) -> Teacher:
    """Return the teacher with the checkpoint's file where its folder is given."""
    if teacher.checkpoint is None or not teacher.checkpoint.is_dir():
        return teacher
    (found,) = _in_teacher_folder(teacher.checkpoint, dataset, teacher.network.use)
    return Teacher(network=teacher.network, checkpoint=found, accuracy=teacher.accuracy)


def _in_teacher_folder(root: Path, dataset: str, network: str) -> list[Path]:
    """Return the checkpoints for a data set and a network in the layout of ddranking's `teacher_dir`.

    Its names are written in other ways: `CIFAR10`, `TinyImageNet` and `ImageNet1K` for `cifar10`,
    `tiny-imagenet` and `imagenet`.
    """

    def same(folder: Path, name: str) -> bool:
        return _bare(folder.name) == _bare(name)

    files = sorted(root.glob(f"*/*/{_CHECKPOINT}"))
    return [f for f in files if same(f.parent.parent, dataset) and same(f.parent, network)]


def _bare(name: str) -> str:
    letters = re.sub("[^a-z0-9]", "", name.lower())
    return "imagenet" if letters == "imagenet1k" else letters


def _siblings(path: Path) -> list[str]:
    folder = path.parent
    return [item.name for item in folder.glob("*.safetensors")] if folder.is_dir() else []
