"""The contract between the engine and its plugins: every hook, typed and documented.

A plugin is an entry point of the group `ddrank.v1` that names a module (or an object) with
functions marked `@ddrank_core.hookimpl`:

    from ddrank_core import ComponentSpec, hookimpl


    @hookimpl
    def ddrank_losses():
        return [ComponentSpec("acme/focal", "acme.focal:FocalLoss", "Focal loss")]

A registration hook that only returns a literal list of `ComponentSpec(...)`, like this one, is read from
the source and never called: the module is imported when one of its components is used. Any other is
called once per process, on the main thread, when components of its kind are first looked for. It returns
a manifest and must import nothing heavy. An exception in one takes that plugin out, with one line on
stderr; the others keep working. A listener's module is imported when a run starts.

Lifecycle hooks are called once per event on the process that drives the run, never inside a
training step. They get one frozen event and return nothing. An exception in one is reported
in one line, that plugin gets no further events, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from ddrank_core.events import (
    EpochFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from ddrank_core.spec import ComponentSpec

PROJECT = "ddrank"
ENTRY_POINT_GROUP = "ddrank.v1"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook of the same name."""


@hookspec
def ddrank_losses() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's losses; each target is a component that keeps `protocols.Loss`."""


@hookspec
def ddrank_label_mappings() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's label mappings (`protocols.LabelMapping`): what an image is trained towards."""


@hookspec
def ddrank_augmentations() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's augmentations (`protocols.Augmentation`): batched, on the device."""


@hookspec
def ddrank_architectures() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's networks (`protocols.Architecture`), for students and for teachers."""


@hookspec
def ddrank_datasets() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's real data sets (`protocols.Dataset`)."""


@hookspec
def ddrank_methods() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's distillation methods (`protocols.Method`), run by `ddrank distill`."""


@hookspec
def ddrank_sinks() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the plugin's sinks (`protocols.Sink`): where `ddrank run --sink` writes what happens."""


@hookspec
def ddrank_run_started(event: RunStarted) -> None:
    """Called once per run, after the plan is made and the data is loaded, before any training."""


@hookspec
def ddrank_trial_started(event: TrialStarted) -> None:
    """Called when a trial is handed to a device: once per attempt, and again where its cohort is split."""


@hookspec
def ddrank_epoch_finished(event: EpochFinished) -> None:
    """Called after each epoch of each training, teachers included; the device may still be at work."""


@hookspec
def ddrank_trial_finished(event: TrialFinished) -> None:
    """Called once per trial, right after its result is stored durably."""


@hookspec
def ddrank_trial_failed(event: TrialFailed) -> None:
    """Called when an attempt at a trial is lost; `event.final` says whether it is given up."""


@hookspec
def ddrank_run_finished(event: RunFinished) -> None:
    """Called once per run that reached its scores, after the run folder is written."""


@hookspec
def ddrank_run_failed(event: RunFailed) -> None:
    """Called once per run that ended before its scores, by an error or by Ctrl-C."""
