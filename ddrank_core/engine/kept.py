"""A trial as the store keeps it, and as it is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core.engine.plan import Trial
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.trial import Done, identity
from ddrank_core.provenance import provenance
from ddrank_core.results import TrialResult
from ddrank_core.store import About, StoredTrial

if TYPE_CHECKING:
    from torch import Tensor

_OUTCOME = ("validation_accuracy", "accuracy", "epoch", "diverged", "seconds", "how")
"""What of a result is kept; the rest is known before a trial is trained."""


def to_keep(done: Done, about: About) -> StoredTrial:
    """Return a finished trial as the store keeps it."""
    outcome = {name: getattr(done.result, name) for name in _OUTCOME}
    return StoredTrial(outcome=outcome, predictions=_pack(done.predictions), about=about)


def read_back(stored: StoredTrial, trial: Trial) -> Done:
    """Return a trial as if it had been trained in this run."""
    result = TrialResult(**identity(trial), **stored.outcome, reused=True)
    return Done(trial, result, _unpack(stored.predictions))


def common_of(prepared: Prepared) -> dict[str, str]:
    """Return what people search for that all trials of a run have in common."""
    config = prepared.config
    student = provenance(config.student)
    given = ", ".join(f"{name}={student['parameters'][name]}" for name in student["given"])
    return {
        "run": config.name,
        "dataset": config.dataset.use,
        "student": f"{config.student.use} ({given})" if given else config.student.use,
        "distilled": prepared.distilled_digest,
    }


def is_whole(stored: StoredTrial, trial: Trial, count: int) -> bool:
    """Return whether what is stored has all that a run needs of the trial: predictions of `count` images.

    None where it diverged or only served a search; empty where a logit of the test was not finite.
    """
    if stored.predictions is None:
        return trial.phase == "search" or bool(stored.outcome["diverged"])
    return len(stored.predictions) in (0, 2 * count)


def _pack(predictions: Tensor | None) -> bytes | None:
    return None if predictions is None else predictions.numpy().astype("<u2").tobytes()


def _unpack(packed: bytes | None) -> Tensor | None:
    if packed is None:
        return None
    import numpy as np
    import torch

    return torch.from_numpy(np.frombuffer(packed, dtype="<u2").astype("int64"))
