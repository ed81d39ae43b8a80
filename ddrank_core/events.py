"""The events of a run, one frozen object for each lifecycle hook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    folder: Path | None = None
    """The run folder, which exists; None where the run leaves none."""
    config: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)
    """The config as it was resolved, defaults included: plain values, as in YAML."""
    at_once: int = 1
    """How many trainings can be under way at the same time."""


@attrs.frozen(kw_only=True)
class TrialStarted:
    """A training has been handed to a device. A trial that is read back has no start."""

    arm: str
    phase: str
    """`search` for a trial that only serves to choose a learning rate, else `final`."""
    repeat: int
    learning_rate: float
    seed: int
    attempt: int
    """Which attempt at this trial it is, from 1."""
    at_once: int
    """How many trials, this one included, are trained as one computation."""


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
class TrialFailed:
    """A training was lost: its worker died, or it raised an error. This attempt has no `TrialFinished`."""

    arm: str
    phase: str
    repeat: int
    learning_rate: float
    seed: int
    error: str
    """Why, in one line."""
    attempt: int
    """Which attempt at this trial was lost, from 1."""
    final: bool
    """Whether the trial is given up; else it is tried again."""
    done: int
    """How many trials have ended: finished, read back, or given up."""
    total: int
    work: float
    """Work of this trial that is not to be done any more: of one given up, what no `EpochFinished` has
    reported; of one tried again, 0, or minus what has been reported and is done anew."""


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


Event = RunStarted | EpochFinished | TrialStarted | TrialFinished | TrialFailed | RunFinished | RunFailed
"""What may happen in a run. It begins with a `RunStarted` and ends with a `RunFinished` or a `RunFailed`."""
