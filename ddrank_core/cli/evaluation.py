"""What every command that trains a run's trials does with it: execute it, tell of it, end it well."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.asked import Asked
from ddrank_core.cli.sinks import Sinks
from ddrank_core.errors import ConfigError, DDRankError, RunFailed, one_line

if TYPE_CHECKING:
    from ddrank_core.config import RunConfig
    from ddrank_core.engine.prepared import Prepared
    from ddrank_core.engine.run import MakeExecutor, Outcome
    from ddrank_core.registry import Registry
    from ddrank_core.report.record import RunReport


class Interrupted(DDRankError):
    """Ctrl-C in the middle of a run."""

    exit_code = 130


class Terminated(KeyboardInterrupt):
    """The machine asks the process to end, as it does before it is taken away."""


class TerminatedRun(Interrupted):
    """SIGTERM in the middle of a run."""

    exit_code = 143


@attrs.frozen(kw_only=True)
class How:
    """How this command is to train, and whom it tells."""

    asked: Asked
    make: MakeExecutor | None
    registry: Registry
    sinks: Sinks


def end_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does, with its own exit code."""
    # Not in a thread of a program that calls the launcher.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(_number: int, _frame: object) -> None:
    global _TERMINATED
    _TERMINATED = True
    raise Terminated


_TERMINATED = False


def asked_to_end(error: BaseException) -> KeyboardInterrupt | None:
    """Return who asked the command to end, where that is what an error came of; libraries may swallow it."""
    if isinstance(error, KeyboardInterrupt):
        return error
    return Terminated() if _TERMINATED else None


def executed(
    prepared: Prepared, how: How, emit: Emitter, folder: Path, here: MakeExecutor | None = None
) -> Outcome:
    """Train what is not stored, with as many processes as were asked for or fit.

    `here` makes what trains on this machine, where it is not the engine's own choice.

    Raises:
        ConfigError: if there cannot be as many processes as were asked for.
        RunFailed: one line, if a training cannot be done.
    """
    from ddrank_core.engine.run import execute
    from ddrank_core.engine.workers import count_workers
    from ddrank_core.store import TrialStore, cache_folder

    asked = how.asked
    with closing(TrialStore(cache_folder())) as store:
        if how.make is not None:
            workers = asked.workers or 1
        else:
            workers = count_workers(asked.workers, prepared.device, prepared.step_activations)
            if (asked.workers or 1) > workers:
                raise ConfigError(
                    f"--workers {asked.workers}: several processes train only on the CPU of a Linux "
                    "machine without a GPU; leave it out"
                )
        make = how.make or here
        return execute(prepared, store, emit, workers, asked.cohort, asked.compile, make=make, folder=folder)


def interrupted(error: KeyboardInterrupt, emit: Emitter) -> Interrupted:
    """Return what is said of a run that was stopped: what is kept, and how to go on."""
    kept = f"{emit.done} of {emit.total} trials are finished and kept" if emit.total else "nothing is lost"
    if isinstance(error, Terminated):
        return TerminatedRun(f"terminated; {kept}, the same command goes on")
    return Interrupted(f"interrupted; {kept}, the same command goes on")


def say_failed(reports: Sequence[RunReport]) -> None:
    """Say at the end that a score is missing for trials that were given up.

    Raises:
        RunFailed: if there are any.
    """
    trials = [trial for report in reports for trial in report.trials]
    failed = [trial for trial in trials if trial.error is not None]
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(trials)} trials failed, the first so: {failed[0].error}; "
            "the same command tries them again"
        )


class Emitter:
    """Tells plugins and sinks what happens, and remembers how far the run is."""

    def __init__(self, how: How) -> None:
        self._host, self._sinks = how.registry.host, how.sinks
        self.done = self.total = 0

    def __call__(self, hook: str, event: object) -> None:
        from ddrank_core.cli.problems import warn
        from ddrank_core.events import RunStarted, TrialFinished

        if isinstance(event, RunStarted):
            self.total = event.trials
        elif isinstance(event, TrialFinished):
            self.done = event.done
        # Sinks first: one that cannot be opened stops the run before the display is.
        self._sinks.notify(hook, event)
        warn(str(fault) for fault in self._host.notify(hook, event))

    def failed(self, name: str, error: BaseException, seconds: float) -> None:
        """Tell that the run ended before its scores."""
        from ddrank_core.events import RunFailed

        why = one_line(error) if asked_to_end(error) is None else "interrupted"
        self("ddrank_run_failed", RunFailed(name=name, error=why, seconds=seconds))


def report_of(outcome: Outcome, settings: RunConfig) -> RunReport:
    """Return what a run came to as what the record, the tables and the pictures are made of."""
    from ddrank_core.cli.versions import versions
    from ddrank_core.report import record

    return record.RunReport(
        config=settings,
        device=outcome.device,
        precision=settings.precision,
        scores=outcome.scores,
        arms=outcome.arms,
        trials=outcome.trials,
        protocol=outcome.protocol,
        components=record.components_of(settings),
        versions=versions(),
        data=outcome.data,
        teachers=outcome.teachers,
        notes=outcome.notes,
        started=outcome.started,
        seconds=outcome.seconds,
    )
