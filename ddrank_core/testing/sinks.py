"""Checks of a sink, on the events of a made-up run, in a folder that is gone afterwards."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any

import attrs
import pytest

from ddrank_core.errors import ConfigError, DDRankError
from ddrank_core.events import (
    EpochFinished,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from ddrank_core.results import ArmResult, ScoreResult, TrialResult
from ddrank_core.testing.case import Case, call, hold, refusal
from ddrank_core.testing.observed import hold_untouched, shown

_NAME = "made-up"
_IDENTITY: dict[str, Any] = {"phase": "final", "learning_rate": 0.01}


def started(folder: Path) -> RunStarted:
    """Return the start of a run of four trials."""
    return RunStarted(
        name=_NAME,
        device="cpu",
        arms=("syn-any", "rdm-any"),
        trials=4,
        work=400.0,
        folder=folder,
        config={"name": _NAME, "seed": 0, "student": {"use": "convnet", "depth": 3}, "scores": ["ior"]},
        at_once=2,
    )


def _ended(repeat: int, done: int, **changes: Any) -> TrialFinished:
    result = TrialResult(
        **{
            "arm": "syn-any",
            **_IDENTITY,
            "repeat": repeat,
            "seed": 7 + repeat,
            "subset_seed": None,
            "validation_accuracy": 0.5,
            "accuracy": None,
            "epoch": 2,
            "diverged": False,
            "seconds": 1.25,
            "how": "alone",
            **changes,
        }
    )
    return TrialFinished(result=result, done=done, total=4, work=0.0)


def _begun(repeat: int, attempt: int = 1) -> TrialStarted:
    return TrialStarted(
        arm="syn-any", **_IDENTITY, repeat=repeat, seed=7 + repeat, attempt=attempt, at_once=2
    )


def _lost(repeat: int, attempt: int, done: int, *, final: bool) -> TrialFailed:
    return TrialFailed(
        arm="syn-any",
        **_IDENTITY,
        repeat=repeat,
        seed=7 + repeat,
        error="=the worker's machine – \U0001f480 – went away\u2028, 'and' \"then\" it was 2 > 1",
        attempt=attempt,
        final=final,
        done=done,
        total=4,
        work=100.0 if final else 0.0,
    )


def _arm(name: str, *accuracies: float | None) -> ArmResult:
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return ArmResult(
        name=name,
        accuracies=accuracies,
        learning_rates=(0.01,) * len(accuracies),
        mean=sum(known) / len(known),
        std=None,
        n=len(known),
        diverged=len(accuracies) - len(known),
    )


def events(folder: Path) -> tuple[Event, ...]:
    """Return what comes after the start: every kind of event, with every value that may be missing or odd."""
    arms = {
        "syn-any": _arm("syn-any", 0.5, None),
        "rdm-any": _arm("rdm-any", 0.25, 0.75),
    }
    scores = {
        "ior": ScoreResult(name="ior", mean=0.25, std=None, ci95=None, n=1, values=(0.25,)),
        "ior_hlr": ScoreResult(name="ior_hlr", mean=None, std=None, ci95=None, n=0, reason="HLR is 0"),
    }
    nan = float("nan")
    return (
        EpochFinished(training="teacher 1/1, convnet", epoch=1, epochs=1, work=0.0),
        _ended(0, 1, reused=True, accuracy=0.5),
        _begun(1),
        _begun(2),
        EpochFinished(training="syn-any, 2 trials at once", epoch=1, epochs=2, work=50.0),
        _lost(2, 1, 1, final=False),
        _begun(2, attempt=2),
        _ended(1, 2, accuracy=None, validation_accuracy=nan, diverged=True, seconds=nan),
        _lost(2, 2, 3, final=True),
        _ended(3, 4, arm="rdm-any", subset_seed=3),
        RunFinished(name=_NAME, folder=folder, scores=scores, arms=arms, seconds=12.5),
    )


_STOPPED = RunFailed(name=_NAME, error="interrupted", seconds=1.0)


def broken_off(folder: Path) -> tuple[Event, ...]:
    """Return the events of a run that is stopped before its scores."""
    return (*events(folder)[:-1], _STOPPED)


@attrs.frozen
class _Later:
    """An event of a later ddrank."""

    name: str


Check = Callable[[Case], None]


def _where_it_works(check: Check) -> Check:
    """Skip the check where the sink says that it cannot work here."""

    @wraps(check)
    def run(case: Case) -> None:
        own = getattr(case.component, "check", None)
        if own is not None:
            _, refused = refusal("check()", own, ConfigError)
            if refused is not None:
                pytest.skip(refused)
        check(case)

    return run


@contextmanager
def _run_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs" / _NAME
        folder.mkdir(parents=True)
        yield folder


def _open(case: Case, folder: Path) -> Any:
    writer = call("open()", case.component.open, started(folder))
    hold(
        hasattr(writer, "write") and hasattr(writer, "close"),
        f"open() returned {shown(writer)}, which has no write and close",
    )
    return writer


def _run(case: Case, folder: Path, following: Sequence[Event]) -> None:
    writer = _open(case, folder)
    for event in following:
        call(f"write() of a {type(event).__name__}", writer.write, event)
    call("close()", writer.close)


def _sizes(folder: Path) -> dict[Path, int]:
    # A link to the latest file may come to point to another one.
    return {
        file: file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()
    }


@_where_it_works
def takes_every_event(case: Case) -> None:
    with _run_folder() as folder:
        _run(case, folder, events(folder))


@_where_it_works
def passes_over_unknown_events(case: Case) -> None:
    with _run_folder() as folder:
        writer = _open(case, folder)
        call("write() of an event that it does not know", writer.write, _Later("later"))
        call("close()", writer.close)


@_where_it_works
def closes_at_any_time(case: Case) -> None:
    """A run may break off before its first event, and be opened again."""
    with _run_folder() as folder:
        for _ in range(2):
            writer = _open(case, folder)
            call("close() before any event", writer.close)


@_where_it_works
def keeps_at_once(case: Case) -> None:
    with _run_folder() as folder:
        writer = _open(case, folder)
        before = _sizes(folder)
        for event in broken_off(folder):
            call(f"write() of a {type(event).__name__}", writer.write, event)
        meanwhile = _sizes(folder)
        call("close()", writer.close)
        after = _sizes(folder)
    hold(
        before == after or before != meanwhile,
        "writes to the run folder only when it is closed, and a run that is killed never closes it; "
        "flush what is written",
    )


@_where_it_works
def adds_to_what_is_there(case: Case) -> None:
    with _run_folder() as folder:
        _run(case, folder, broken_off(folder))
        before = _sizes(folder)
        _run(case, folder, (_STOPPED,))
        after = _sizes(folder)
    lost = sorted(file.name for file, size in before.items() if after.get(file, -1) < size)
    hold(
        not lost,
        f"shortens or removes {', '.join(lost)} when the run goes on after it was stopped; "
        "add to what is there",
    )


@_where_it_works
def says_what_cannot_be_written(case: Case) -> None:
    """Open it in a run folder that is a file: the sink needs none, or refuses."""
    with _run_folder() as folder:
        blocked = folder / "file"
        blocked.write_bytes(b"")
        writer, _ = refusal(
            "open() where the run folder cannot be written",
            lambda: case.component.open(started(blocked)),
            OSError,
            DDRankError,
        )
        if writer is not None:
            call("close()", writer.close)


@_where_it_works
def leaves_generators(case: Case) -> None:
    with _run_folder() as folder:
        hold_untouched(lambda: _run(case, folder, broken_off(folder)), "a sink draws nothing that others see")


@_where_it_works
def leaves_stdout(case: Case) -> None:
    said = io.StringIO()
    with _run_folder() as folder, redirect_stdout(said):
        _run(case, folder, broken_off(folder))
    hold(not said.getvalue(), f"prints {said.getvalue()[:60]!r}; stdout is for the scores of the run")
