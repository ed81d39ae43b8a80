"""Writes every event of a run as a line of JSON to the file that ACME_JOURNAL names, if it names one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ddrank_core import EpochFinished, RunFailed, RunFinished, RunStarted, TrialFinished, hookimpl


@hookimpl
def ddrank_run_started(event: RunStarted) -> None:
    _write("run started", name=event.name, arms=event.arms, trials=event.trials)


@hookimpl
def ddrank_epoch_finished(event: EpochFinished) -> None:
    _write("epoch finished", training=event.training, epoch=event.epoch, epochs=event.epochs)


@hookimpl
def ddrank_trial_finished(event: TrialFinished) -> None:
    trial = event.result
    _write("trial finished", arm=trial.arm, repeat=trial.repeat, accuracy=trial.accuracy, done=event.done)


@hookimpl
def ddrank_run_finished(event: RunFinished) -> None:
    _write("run finished", folder=str(event.folder), scores={k: s.mean for k, s in event.scores.items()})


@hookimpl
def ddrank_run_failed(event: RunFailed) -> None:
    _write("run failed", name=event.name, error=event.error)


def _write(happened: str, **facts: Any) -> None:
    path = os.environ.get("ACME_JOURNAL")
    if not path:
        return
    # Opened anew for each line: a run that is killed leaves whole lines behind.
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": happened, **facts}) + "\n")
