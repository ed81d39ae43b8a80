"""The events of a run, one frozen object for each lifecycle hook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from ddrank_core.results import ArmResult, ScoreResult, TrialResult


@attrs.frozen(kw_only=True)
class RunStarted:
    """The plan is made and the first trial is about to be trained."""

    name: str
    device: str
    arms: tuple[str, ...]
    trials: int
    """How many trainings the run will do or read back, teachers not counted."""
    work: float
    """The whole run's expected work; one unit is about one image, forward and backward."""


@attrs.frozen(kw_only=True)
class EpochFinished:
    """An epoch of the training that is under way has been dispatched to the device."""

    training: str
    """What is being trained, in words: `syn-any 2/5, learning rate 0.01`, or `teacher 1`."""
    epoch: int
    epochs: int
    work: float
    """The work this epoch was, in the unit of `RunStarted.work`; 0 for a teacher."""


@attrs.frozen(kw_only=True)
class TrialFinished:
    """A training has ended and its result is stored."""

    result: TrialResult
    done: int
    total: int
    work: float
    """Work of this trial that no `EpochFinished` has reported (a trial that was read back)."""


@attrs.frozen(kw_only=True)
class RunFinished:
    """All scores are computed and the run folder is complete."""

    name: str
    folder: Path
    scores: Mapping[str, ScoreResult]
    arms: Mapping[str, ArmResult]
    seconds: float


@attrs.frozen(kw_only=True)
class RunFailed:
    """The run ended before its scores: `error` says why, in one line."""

    name: str
    error: str
    seconds: float
