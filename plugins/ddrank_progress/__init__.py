"""Shows how far a run is, and how long it still takes, on stderr."""

from __future__ import annotations

from ddrank_core import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    hookimpl,
)
from ddrank_progress.listener import Listener

_listener = Listener()


@hookimpl
def ddrank_run_started(event: RunStarted) -> None:
    """Open the display: a live bar on a terminal, now and then a line anywhere else."""
    _listener.run_started(event)


@hookimpl
def ddrank_trial_started(event: TrialStarted) -> None:
    """Count the trial as under way."""
    _listener.trial_started(event)


@hookimpl
def ddrank_epoch_finished(event: EpochFinished) -> None:
    """Move the display on."""
    _listener.epoch_finished(event)


@hookimpl
def ddrank_trial_finished(event: TrialFinished) -> None:
    """Count the trial and show its accuracy."""
    _listener.trial_finished(event)


@hookimpl
def ddrank_trial_failed(event: TrialFailed) -> None:
    """Count what was lost."""
    _listener.trial_failed(event)


@hookimpl
def ddrank_run_finished(event: RunFinished) -> None:
    """Close the display at 100 %."""
    _listener.run_finished(event)


@hookimpl
def ddrank_run_failed(event: RunFailed) -> None:
    """Close the display where it stands; the launcher says why."""
    _listener.run_failed(event)
