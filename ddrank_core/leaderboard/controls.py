"""Controls: sets that a distilled set must beat to have learned anything, made by the selection methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.asked import Asked
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.keys import digest_of_content
from ddrank_core.engine.prepared import Prepared, real_digest, working_images
from ddrank_core.engine.teachers import ReadyTeacher, asker
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.protocols import Method
from ddrank_core.provenance import provenance
from ddrank_core.registry import Registry
from ddrank_core.store import cache_folder
from ddrank_core.structure import Chosen, Structurer
from ddrank_core.types import DistilledSet

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core.engine.executors.contract import Executor
    from ddrank_core.engine.run import MakeExecutor
    from ddrank_core.engine.trial import OnEpoch

CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "noise": {"use": "noise"},
    "random": {"use": "random"},
    # Pixels, so that one set stands beside every submission, whatever its student.
    "herding": {"use": "herding", "space": "pixels"},
    "k-means": {"use": "k-means"},
}
"""Name -> the method that makes it, from nothing to the best choice of real images."""

SEED = 0
BATCH = 256
"""Images that the teachers are asked about at once."""


def make_control(
    name: str, prepared: Prepared, ipc: int, teachers: Sequence[ReadyTeacher], registry: Registry
) -> Path:
    """Return the file of a control beside the distilled set of `prepared`, made unless it is in the cache.

    It brings what the distilled set brings: its learning rate, and under a recipe with stored soft labels
    such labels, of the teachers that label the random images of that run.

    Raises:
        ConfigError: if it needs soft labels, and the run asked no teacher.
        DataError: if a class has too few real images.
    """
    soft = _needs_soft(prepared)
    if soft and not teachers:
        raise ConfigError(
            f"{prepared.where}: scores: {', '.join(prepared.config.scores)} ask no teacher, who would label "
            "the controls as recipe.labels needs it; ask for ior or lrs too"
        )
    path = control_file(name, prepared, ipc, teachers, registry)
    if is_intact(path):
        return path
    made = _method(name, registry).component.distill(
        prepared.real, prepared.config.student.component, ipc, "cpu", SEED, lambda step, steps: None
    )
    made = attrs.evolve(made, learning_rate=prepared.distilled.learning_rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    distilled_file.save(_labelled(made, prepared, teachers) if soft else made, path)
    return path


def control_file(
    name: str, prepared: Prepared, ipc: int, teachers: Sequence[ReadyTeacher], registry: Registry
) -> Path:
    """Return where the cache keeps a control, whether it is there or not."""
    distilled, soft = prepared.distilled, _needs_soft(prepared)
    content = {
        "method": provenance(_method(name, registry)),
        "train": real_digest(prepared.real, "train"),
        "statistics": [prepared.real.mean, prepared.real.std],
        "ipc": ipc,
        "seed": SEED,
        "learning_rate": distilled.learning_rate,
        "soft": [distilled.soft_kind, distilled.soft_temperature, _whitening(prepared)] if soft else None,
        "teachers": [teacher.digest for teacher in teachers] if soft else [],
    }
    return cache_folder() / "controls" / f"{name}-{digest_of_content(content)[:16]}.safetensors"


def _method(name: str, registry: Registry) -> Chosen[Method]:
    return Structurer(registry, Path()).chosen("method", dict(CONTROLS[name]))


def _needs_soft(prepared: Prepared) -> bool:
    return bool(getattr(prepared.config.recipe.labels.component, "needs_stored_soft", False))


def _whitening(prepared: Prepared) -> float | None:
    return None if prepared.config.whitening is None else prepared.config.whitening.eps


def is_intact(path: Path) -> bool:
    """Return whether a control is in the cache, whole."""
    try:
        distilled_file.load(path)
    except DataError:
        # Not there, or cut off by a power cut: it is made again.
        return False
    return True


def _labelled(made: DistilledSet, prepared: Prepared, teachers: Sequence[ReadyTeacher]) -> DistilledSet:
    """Return the set with the teachers' mean labels, of the kind that the distilled set stores."""
    import torch

    kind, temperature = prepared.distilled.soft_kind, prepared.distilled.soft_temperature
    images = working_images(attrs.evolve(prepared, distilled=made))
    ask = asker([teacher.network for teacher in teachers])
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    asked = (torch.stack(ask(part.to(prepared.device))).cpu() for part in parts)
    logits: Tensor = torch.cat(list(asked), dim=1)
    soft = logits if kind == "logits" else (logits / temperature).softmax(dim=2)
    return attrs.evolve(made, soft_labels=soft.mean(dim=0), soft_kind=kind, soft_temperature=temperature)


# -- what teachers a run asks ------------------------------------------------------------------


def hearing(heard: Callable[[Sequence[ReadyTeacher]], None]) -> MakeExecutor:
    """Return what makes this machine's executor, and tells `heard` of the teachers that the run asks."""

    def make(prepared: Prepared, asked: Asked, on_epoch: OnEpoch) -> Executor:
        from ddrank_core.engine.executors.local import LocalExecutor
        from ddrank_core.engine.executors.pool import PoolExecutor

        several = (asked.workers or 1) > 1
        executor: Any = (
            PoolExecutor(prepared, asked, asked.workers or 1, on_epoch)
            if several
            else LocalExecutor(prepared, asked, on_epoch)
        )
        listening: Any = _Hearing(executor, heard)
        made: Executor = listening
        return made

    return make


class _Hearing:
    """An executor that passes everything on."""

    def __init__(self, executor: Executor, heard: Callable[[Sequence[ReadyTeacher]], None]) -> None:
        self._executor, self._heard = executor, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def use_teachers(self, teachers: Sequence[ReadyTeacher]) -> None:
        self._heard(teachers)
        self._executor.use_teachers(teachers)
