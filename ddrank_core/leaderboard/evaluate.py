"""Evaluate a submission: its distilled set and the controls, under the same recipes and teachers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.config import DistilledRef, RunConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.teachers import ReadyTeacher
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.controls import CONTROLS, make_control
from ddrank_core.leaderboard.planned import planned, takes_controls
from ddrank_core.leaderboard.track import config_of
from ddrank_core.leaderboard.types import Submission, Track, Variant
from ddrank_core.leaderboard.variants import check_changes, contestant_of
from ddrank_core.registry import Registry
from ddrank_core.report.folder import RECORD, as_json, says_the_same, staging, sync, worded
from ddrank_core.report.record import RunReport, build_record
from ddrank_core.store import cache_folder

if TYPE_CHECKING:
    import torch

METHOD = "method"


@attrs.frozen(kw_only=True)
class Contestant:
    """One run of an evaluation: the submitted set or a control, on a track."""

    track: Track
    name: str
    """`method`, a control's, or `method-<axis>-<name>` for a variant."""
    folder: Path
    """Where its record goes."""

    @property
    def record(self) -> Path:
        return self.folder / RECORD


@attrs.frozen(kw_only=True)
class Changes:
    """What makes a variant of a method's own recipe."""

    variant: Variant
    overrides: tuple[str, ...]
    """`field=value`, each."""


class Evaluation:
    """The runs of one submission, in the order in which they are to be done: the method before its controls.

    What can be found wrong with the submitted set is found when this is made, before anything is trained.

    Raises:
        DDRankError: one line that names the file and the field.
    """

    def __init__(
        self,
        submission: Submission,
        tracks: Sequence[Track],
        registry: Registry,
        device: torch.device,
        changes: Changes | None = None,
    ) -> None:
        """`changes` make it the evaluation of one variant of the own recipe, instead of `tracks`."""
        self.submission, self._registry, self._device = submission, registry, device
        if changes is None:
            configs = {track: config_of(submission, track, registry) for track in tracks}
        else:
            configs = {"own": _varied(submission, changes, registry)}
        _check_digest(submission, next(iter(configs.values())).distilled.path)
        _check_writable(submission.folder)
        self._teachers: dict[Track, Sequence[ReadyTeacher]] = {}
        self._methods: dict[Track, Prepared] = {}
        for track, config in configs.items():
            self._methods[track] = self._prepared(track, config, str(submission.recipe))
            _check_counts(submission, self._methods[track])
        self.contestants = tuple(
            Contestant(track=track, name=name, folder=submission.folder / "results" / track / name)
            for track in configs
            for name in ((contestant_of(changes.variant),) if changes else self._names(track))
        )

    def _names(self, track: Track) -> tuple[str, ...]:
        return (METHOD, *(CONTROLS if self.has_controls(track) else ()))

    def has_controls(self, track: Track) -> bool:
        """Return whether controls can be trained as the method is."""
        return takes_controls(self._methods[track].plan)

    def prepare(self, contestant: Contestant) -> Prepared:
        """Return a run that is ready to be executed; a control is made here, unless it is in the cache.

        Raises:
            DDRankError: one line, if a control cannot be made.
        """
        method = self._methods[contestant.track]
        if contestant.name not in CONTROLS:
            return method
        ipc, teachers = self.submission.ipc, self._teachers.get(contestant.track, ())
        control = make_control(contestant.name, method, ipc, teachers, self._registry)
        evolved: RunConfig = attrs.evolve(  # type: ignore[misc]  # mypy loses attrs here
            method.config, distilled=DistilledRef(path=control, ipc=ipc)
        )
        return self._prepared(contestant.track, evolved, f"{method.where}: control {contestant.name}")

    def hears(self, contestant: Contestant) -> Callable[[Sequence[ReadyTeacher]], None]:
        """Return what keeps the teachers of a contestant's run; they label the controls after the method."""

        def keep(teachers: Sequence[ReadyTeacher]) -> None:
            self._teachers.setdefault(contestant.track, tuple(teachers))

        return keep

    def write(self, report: RunReport, contestant: Contestant) -> bool:
        """Write a contestant's record; return whether there was anything new to write.

        Raises:
            RunFailed: one line, if it cannot be written.
        """
        record = portable(build_record(report), report.config, self.submission.folder)
        if says_the_same(contestant.record, report, record):
            return False
        with worded(contestant.folder), staging(contestant.folder) as unfinished:
            (unfinished / RECORD).write_bytes(as_json(record))
            sync(unfinished / RECORD)
            os.replace(unfinished / RECORD, contestant.record)
        return True

    def _prepared(self, track: Track, config: RunConfig, where: str) -> Prepared:
        real = next((method.real for method in self._methods.values()), None)
        prepared = prepare(config, where, self._registry, self._device, real)
        return prepared if track == "own" else self._without_own_rate(prepared)

    def _without_own_rate(self, prepared: Prepared) -> Prepared:
        """Return the run without the rate that the distilled set brings: a fixed recipe has its own."""
        if prepared.distilled.learning_rate is None:
            return prepared
        return attrs.evolve(
            prepared,
            distilled=attrs.evolve(prepared.distilled, learning_rate=None),
            plan=planned(prepared.config, None, self._registry).plan,
        )


def portable(record: Mapping[str, Any], config: RunConfig, folder: Path) -> dict[str, Any]:
    """Return a record whose paths start at the submission's folder, or at the cache for a control's.

    The same evaluation then leaves the same record in every copy of the repository.
    """
    written: dict[str, str] = {}

    def note(path: Path) -> str:
        return written.setdefault(str(path), local(path, folder))

    config.resolved(note)
    holding_paths = ("config", "components", "data", "teachers")
    return {
        name: _renamed(value, written) if name in holding_paths else value for name, value in record.items()
    }


def local(path: Path, folder: Path) -> str:
    """Return a path as it is written in a submission's record."""
    absolute, cache = Path(os.path.abspath(path)), Path(os.path.abspath(cache_folder()))
    if absolute.is_relative_to(cache):
        return absolute.relative_to(cache).as_posix()
    return Path(os.path.relpath(absolute, os.path.abspath(folder))).as_posix()


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _varied(submission: Submission, changes: Changes, registry: Registry) -> RunConfig:
    """Return the own recipe with the changes, which are those of the variant's axis and no others."""
    config = config_of(submission, "own", registry, changes.overrides)
    own = config_of(submission, "own", registry)
    check_changes(config.resolved(str), own.resolved(str), changes.variant.axis, str(submission.recipe))
    return config


def _check_digest(submission: Submission, path: Path) -> None:
    declared = submission.distilled
    # The size first, for it costs nothing.
    if (size := path.stat().st_size) != declared.bytes:
        raise DataError(
            f"{submission.folder}: distilled: {path} has {size} bytes, but submission.yaml declares "
            f"{declared.bytes}"
        )
    if (found := distilled_file.digest(path)) != declared.sha256:
        raise DataError(
            f"{submission.folder}: distilled: {path} has {size} bytes and the SHA-256 {found}, but "
            f"submission.yaml declares {declared.sha256}"
        )


def _check_counts(submission: Submission, prepared: Prepared) -> None:
    """Check that the set has as many images of each class as its controls will have."""
    path = prepared.config.distilled.path
    for name, count in zip(prepared.real.class_names, prepared.counts, strict=True):
        if count != submission.ipc:
            raise DataError(
                f"{submission.folder}: ipc: {submission.ipc}, but {path} has {count} images of class {name}"
            )


def _check_writable(folder: Path) -> None:
    """Write in the submission's folder, to find out before the work that this cannot be done."""
    try:
        with staging(folder) as unfinished:
            (unfinished / RECORD).write_bytes(b"{}")
    except OSError as error:
        raise DataError(f"{folder}: the records cannot be written: {error.strerror or error}") from error
