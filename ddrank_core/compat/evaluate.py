"""Run an evaluation from tensors: what `ddrank run` does, without files of the user's own."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.compat.findings import Translation
from ddrank_core.compat.recipes import PLACES
from ddrank_core.errors import ConfigError, DataError, DDRankError, one_line

if TYPE_CHECKING:
    from ddrank_core.data.importers.options import SpaceKind
    from ddrank_core.engine.run import Outcome
    from ddrank_core.registry import Registry
    from ddrank_core.types import DistilledSet, RealData


@attrs.frozen(kw_only=True)
class Choices:
    """What this project asks and ddranking does not."""

    protocol: str
    image_space: SpaceKind | None
    download: bool
    seed: int


@attrs.frozen(eq=False, kw_only=True)
class Images:
    """Distilled images as a user has them: in memory, or in a folder of pictures by class."""

    tensor: Any = None
    path: str | os.PathLike[str] | None = None
    hard_labels: Any = None
    soft_labels: Any = None
    learning_rate: Any = None


class Session:
    """One evaluator: its settings, and its real data, which is read once."""

    def __init__(
        self, title: str, found: Translation, device: str, choices: Choices, registry: Registry
    ) -> None:
        self.title, self.found, self.device, self.choices = title, found, device, choices
        self.registry = registry
        self._real: RealData | None = None

    def run(self, images: Images, weights: Mapping[str, float]) -> Outcome:
        """Evaluate distilled images; finished trials are kept, so that asking again trains nothing.

        Raises:
            DDRankError: one line that begins with the evaluator's name.
        """
        from ddrank_core.data.distilled import save
        from ddrank_core.engine.device import resolve

        place = resolve(self.device)
        with tempfile.TemporaryDirectory(prefix="ddrank-") as folder:
            try:
                distilled = self._distilled(images)
                save(distilled, Path(folder) / "distilled.safetensors")
                return self._execute(Path(folder), weights, place)
            except DDRankError as error:
                # The files are this function's own; a user knows the evaluator and its arguments.
                text = str(error).replace(f"{folder}{os.sep}distilled.safetensors", "the distilled images")
                raise type(error)(text.replace(f"{folder}{os.sep}{self.title}.yaml", self.title)) from error

    def _execute(self, folder: Path, weights: Mapping[str, float], place: Any) -> Outcome:
        from ddrank_core.config import load_run
        from ddrank_core.engine.prepare import prepare
        from ddrank_core.engine.run import execute
        from ddrank_core.events import RunFailed, RunFinished
        from ddrank_core.store import TrialStore, cache_folder

        path = folder / f"{self.title}.yaml"
        path.write_text(json.dumps(self._values(weights)), encoding="utf-8")  # JSON is YAML
        config = load_run(path, self.registry)
        prepared = prepare(config, self.title, self.registry, place, real=self.real())
        clock = time.perf_counter()
        try:
            with closing(TrialStore(cache_folder())) as store:
                outcome = execute(prepared, store, self._emit)
        except BaseException as error:
            why, seconds = one_line(error), time.perf_counter() - clock
            self._emit("ddrank_run_failed", RunFailed(name=config.name, error=why, seconds=seconds))
            raise
        finished = RunFinished(
            name=config.name,
            # There is no run folder, but a table.
            folder=Path(self.found.save_path).parent,
            scores=outcome.scores,
            arms=outcome.arms,
            seconds=outcome.seconds,
        )
        self._emit("ddrank_run_finished", finished)
        return outcome

    def _values(self, weights: Mapping[str, float]) -> dict[str, Any]:
        values = {**self.found.values, "weights": dict(weights), "seed": self.choices.seed}
        values["dataset"] = self.dataset_values()
        values["distilled"] = {**values["distilled"], "path": "distilled.safetensors"}
        values["protocol"] = {**values["protocol"], "use": self.choices.protocol}
        values["teachers"] = [_absolute(teacher, "checkpoint") for teacher in values.get("teachers", ())]
        return values

    def dataset_values(self) -> dict[str, Any]:
        """Return the data set as a config names it, with its folder seen from the current one."""
        chosen = _absolute(self.found.values["dataset"], *PLACES)
        return {**chosen, "download": True} if self.choices.download else chosen

    def real(self) -> RealData:
        """Return the real data set, read at the first call."""
        if self._real is None:
            from ddrank_core.engine.prepare import check_real
            from ddrank_core.engine.rehearse import fault
            from ddrank_core.structure import FieldError, Structurer

            try:
                chosen = Structurer(self.registry, Path()).chosen("dataset", self.dataset_values())
            except (FieldError, ExceptionGroup) as error:
                inner = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                raise ConfigError(f"{self.title}: dataset: {inner}") from error
            with fault(f"{self.title}: dataset"):
                real = chosen.component.load()
            check_real(real, f"dataset {chosen.use}")
            self._real = real
        return self._real

    # -- the distilled images --------------------------------------------------------------------

    def _distilled(self, images: Images) -> DistilledSet:
        from ddrank_core.data.importers import ImportOptions, read_source

        if (images.tensor is None) == (images.path is None):
            raise ConfigError(f"{self.title}: give either image_tensor or image_path")
        if images.path is None:
            return self._from_tensor(images)
        distilled = read_source(Path(images.path), ImportOptions(num_classes=self.real().num_classes))
        soft = _float_tensor(images.soft_labels)
        if soft is not None and len(soft) != len(distilled.images):
            raise DataError(f"{self.title}: soft_labels: {len(soft)} for {len(distilled.images)} pictures")
        return attrs.evolve(distilled, soft_labels=soft, learning_rate=_rate(images.learning_rate))

    def _from_tensor(self, images: Images) -> DistilledSet:
        from ddrank_core.data.importers import ImportOptions
        from ddrank_core.data.importers.assemble import Parts, assemble

        real = self.real()
        labels = self._class_by_class() if images.hard_labels is None else images.hard_labels
        space = self.choices.image_space or ("zca" if "whitening" in self.found.values else "normalised")
        mean, std = self._statistics() if space == "normalised" else ((), ())
        options = ImportOptions(space=space, mean=mean, std=std, num_classes=real.num_classes)
        parts = Parts(
            images=images.tensor,
            labels=_tensor(labels),
            soft_labels=_float_tensor(images.soft_labels),
            learning_rate=_rate(images.learning_rate),
        )
        return assemble(parts, options, Path("image_tensor"), self.title)

    def _class_by_class(self) -> Any:
        """Return the labels of images that come class by class, as ddranking takes them to."""
        import torch

        return torch.arange(self.real().num_classes).repeat_interleave(self.found.values["distilled"]["ipc"])

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what the images were normalised with: the DC family's values, else the data set's own."""
        from ddrank_core.data.importers.options import DATASETS

        known = DATASETS.get(self.found.values["dataset"]["use"])
        return (known.mean, known.std) if known else (self.real().mean, self.real().std)

    def _emit(self, hook: str, event: object) -> None:
        for fault in self.registry.host.notify(hook, event):
            warnings.warn(str(fault), stacklevel=2)


def _absolute(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: os.path.abspath(value) if key in keys else value for key, value in values.items()}


def _tensor(values: Any) -> Any:
    import torch

    return values if isinstance(values, torch.Tensor) else torch.as_tensor(values)


def _float_tensor(values: Any) -> Any:
    return None if values is None else _tensor(values).detach().cpu().float().contiguous()


def _rate(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"syn_lr: must be one number, got {str(value)[:60]!r}") from error
