"""Whether a submission's records are of this submission: its config, its data, these plugins, its trials."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from ddrank_core import __version__
from ddrank_core.config import RunConfig
from ddrank_core.engine.prepared import real_digest
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.leaderboard.agreement import Evaluated, check_agreement
from ddrank_core.leaderboard.control_check import Beside, check_controls
from ddrank_core.leaderboard.controls import CONTROLS
from ddrank_core.leaderboard.evaluate import METHOD, local
from ddrank_core.leaderboard.findings import Findings, listed
from ddrank_core.leaderboard.measured import read_json, take, typed
from ddrank_core.leaderboard.planned import Planned, planned, takes_controls, variant_config
from ddrank_core.leaderboard.recomputed import check_scores
from ddrank_core.leaderboard.said import check_equal, check_said, check_set_said, check_teachers, check_views
from ddrank_core.leaderboard.set_check import Loaded
from ddrank_core.leaderboard.submission import leaves
from ddrank_core.leaderboard.track import config_of, fixed_datasets
from ddrank_core.leaderboard.types import TRACKS, Axis, Submission, Track
from ddrank_core.leaderboard.variants import check_distinct, check_variant, variant_of
from ddrank_core.registry import ALL_KINDS, Registry
from ddrank_core.report.folder import RECORD
from ddrank_core.report.record import components_of, strict_json
from ddrank_core.sources import source_digest
from ddrank_core.types import RealData

RESULTS = "results"
CHECK = "record"
_PATH = "\0"
"""Marks what is a path in a config: where it lies differs from machine to machine."""


@attrs.frozen(kw_only=True)
class _Place:
    """A record, and whose it is."""

    track: Track
    contestant: str
    path: Path

    @property
    def variant(self) -> Axis | None:
        found = variant_of(self.contestant)
        return found.axis if found else None


@attrs.frozen(kw_only=True)
class _Checking:
    """What the records of a track are held against."""

    submission: Submission
    planned: Planned
    """The method's and its controls'."""
    own_rate: float | None
    """The learning rate that the distilled set brings, where the track has it."""
    registry: Registry
    real: RealData | None
    loaded: Loaded | None


def check_records(
    submission: Submission,
    registry: Registry,
    real: RealData | None,
    loaded: Loaded | None,
    findings: Findings,
) -> None:
    """Check every record in `results/`; `loaded` is the distilled set, None where it cannot be read."""
    places = list(_places(submission, findings))
    if not places:
        folder = submission.folder / RESULTS
        findings.note("info", CHECK, f"{folder}: no record yet; 'ddrank submission evaluate' makes them")
    for track in TRACKS:
        mine = [place for place in places if place.track == track]
        if not mine:
            if places and (track == "own" or submission.dataset in fixed_datasets()):
                _note_missing(submission, track, (METHOD,), findings)
            continue
        with findings.refusing(CHECK):
            config = config_of(submission, track, registry)
            own_rate = loaded.distilled.learning_rate if loaded is not None and track == "own" else None
            checking = _Checking(
                submission=submission,
                planned=planned(config, own_rate, registry),
                own_rate=own_rate,
                registry=registry,
                real=real,
                loaded=loaded,
            )
            _check_track(mine, checking, findings)


def _note_missing(submission: Submission, track: Track, names: Iterable[str], findings: Findings) -> None:
    folder = submission.folder / RESULTS / track
    findings.note(
        "warning",
        CHECK,
        f"{folder}: no record of {', '.join(names)}; 'ddrank submission evaluate --track {track}' makes it",
    )


def _places(submission: Submission, findings: Findings) -> Iterator[_Place]:
    folder = submission.folder / RESULTS
    for path in sorted(folder.glob("*/*")) if folder.is_dir() else ():
        track, contestant = path.parent.name, path.name
        place = _Place(track=cast("Track", track), contestant=contestant, path=path / RECORD)
        known = contestant in (METHOD, *CONTROLS) or (place.variant is not None and track == "own")
        if track not in TRACKS or not known:
            findings.note(
                "error",
                CHECK,
                f"{path}: neither a contestant ({METHOD}, {', '.join(CONTROLS)}) on a track "
                f"({', '.join(TRACKS)}) nor a variant on track own; remove it",
            )
        elif place.path.is_file():
            yield place
        else:
            findings.note("warning", CHECK, f"{path}: holds no {RECORD}")


def _check_track(places: list[_Place], checking: _Checking, findings: Findings) -> None:
    records: dict[str, Mapping[str, Any]] = {}
    for place in places:
        with findings.refusing(CHECK):
            records[place.contestant] = read_json(place.path)
    evaluated: list[Evaluated] = []
    for place in sorted(places, key=lambda place: place.contestant != METHOD):
        if place.contestant in records:
            with findings.refusing(CHECK):
                evaluated.append(_checked(place, records, checking, findings))
    track, folder = places[0].track, places[0].path.parents[1]
    there = {place.contestant for place in places}
    expected = (METHOD, *(CONTROLS if takes_controls(checking.planned.plan) else ()))
    if missing := [name for name in expected if name not in there]:
        _note_missing(checking.submission, track, missing, findings)
    with findings.refusing(CHECK):
        check_distinct(records, str(folder))
    check_agreement(evaluated, CHECK, findings)
    check_controls(records, _beside(checking), folder, findings)


def _checked(
    place: _Place, records: Mapping[str, Mapping[str, Any]], checking: _Checking, findings: Findings
) -> Evaluated:
    """Return a record that was checked for itself.

    Raises:
        DDRankError: one line that names the file and the field.
    """
    record, where = records[place.contestant], str(place.path)
    to_do = _to_do(place, record, records.get(METHOD), checking)
    _check_config(record, place, to_do.config, checking.submission)
    _check_data(record, place, checking.submission, checking.real)
    check_said(record, to_do, where)
    if checking.loaded is not None:
        is_control = place.contestant in CONTROLS
        check_set_said(record, checking.loaded.distilled, to_do.config, checking.own_rate, is_control, where)
        if place.variant is not None:
            check_views(to_do.config, checking.loaded.distilled)
        check_teachers(record, checking.loaded.distilled, to_do.config, where)
    check_scores(record, to_do.config, to_do.plan, where)
    _check_versions(record, to_do.config, place, checking.registry, findings)
    findings.note("info", CHECK, f"{where}: its scores follow from its {len(record['trials'])} trials")
    return Evaluated(where=where, record=record, planned=to_do)


def _to_do(
    place: _Place, record: Mapping[str, Any], method: Mapping[str, Any] | None, checking: _Checking
) -> Planned:
    """Return what a contestant's run was to do."""
    if place.variant is None:
        return checking.planned
    where, own = str(place.path), checking.planned.config
    check_variant(record, method, place.variant, where)
    config = variant_config(record, own, checking.submission, place.variant, checking.registry, where)
    return planned(config, checking.own_rate, checking.registry)


def _beside(checking: _Checking) -> Beside:
    distilled = None
    if checking.loaded is not None:
        distilled = attrs.evolve(checking.loaded.distilled, learning_rate=checking.own_rate)
    return Beside(
        planned=checking.planned,
        distilled=distilled,
        real=checking.real,
        ipc=checking.submission.ipc,
        registry=checking.registry,
    )


# -- config ------------------------------------------------------------------------------------


def _check_config(
    record: Mapping[str, Any], place: _Place, config: RunConfig, submission: Submission
) -> None:
    where = str(place.path)
    ours = dict(leaves(strict_json(config.resolved(lambda path: f"{_PATH}{local(path, submission.folder)}"))))
    theirs = dict(leaves(take(record, "config", dict, where)))
    for field in sorted(ours.keys() | theirs.keys()):
        if _is_free(field, ours, place.contestant):
            continue
        if not _same(field, ours.get(field, _PATH), theirs.get(field, ())):
            raise DataError(
                f"{where}: config.{field}: {_shown(theirs, field)}, but the recipe says "
                f"{_shown(ours, field)}; evaluate it again"
            )


def _is_free(field: str, ours: Mapping[str, Any], contestant: str) -> bool:
    """Return whether a field may differ: a name, where the real data lies, and which set a control is."""
    if field.startswith("dataset."):
        return str(ours.get(field, "")).startswith(_PATH)
    return field == "name" or (contestant in CONTROLS and field.startswith("distilled."))


def _same(field: str, ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and ours.startswith(_PATH):
        path = ours[1:]
        if not isinstance(theirs, str) or not path:
            return False
        # What the set is, its digest says; of other files the record tells which they are.
        return theirs == path if field != "distilled.path" else _name(theirs) == _name(path)
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def _name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _shown(values: Mapping[str, Any], field: str) -> str:
    return str(values[field]).lstrip(_PATH)[:60] if field in values else "nothing"


# -- data --------------------------------------------------------------------------------------


def _check_data(
    record: Mapping[str, Any], place: _Place, submission: Submission, real: RealData | None
) -> None:
    where = str(place.path)
    if place.contestant not in CONTROLS:
        check_equal(record, "data.distilled.sha256", submission.distilled.sha256, where)
    if real is None:
        return
    check_equal(record, "data.dataset.train_sha256", real_digest(real, "train"), where)
    check_equal(record, "data.dataset.test_sha256", real_digest(real, "test"), where)
    check_equal(record, "data.dataset.test_images", len(real.test_labels), where)
    check_equal(record, "data.dataset.classes", list(real.class_names), where)
    check_equal(record, "data.dataset.image_shape", list(real.image_shape), where)
    check_equal(record, "data.distilled.images", submission.ipc * real.num_classes, where)


# -- plugins -----------------------------------------------------------------------------------


def _check_versions(
    record: Mapping[str, Any], config: RunConfig, place: _Place, registry: Registry, findings: Findings
) -> None:
    """Warn where a component was another then: its plugin's version, or its source."""
    where = str(place.path)
    listed_then = [
        typed(item, dict, f"{where}: components") for item in take(record, "components", list, where)
    ]
    _check_components(listed_then, config, where)
    differing = list(
        dict.fromkeys(filter(None, (_difference(item, registry, where) for item in listed_then)))
    )
    then = take(record, "versions.ddrank", str, where)
    if then != __version__:
        differing.insert(0, f"ddrank {then[:20]}, here {__version__}")
    if differing:
        findings.note(
            "warning", CHECK, f"{where}: made with others than are installed here: {listed(differing)}"
        )


def _check_components(items: list[dict[str, Any]], config: RunConfig, where: str) -> None:
    theirs = {(item.get("field"), item.get("kind"), item.get("name")) for item in items}
    for component in components_of(config):
        key = (component["field"], component["kind"], component["name"])
        if key not in theirs:
            raise DataError(f"{where}: components: {component['name']} of {component['field']} is missing")


def _difference(item: Mapping[str, Any], registry: Registry, where: str) -> str | None:
    kind, name = take(item, "kind", str, where)[:40], take(item, "name", str, where)[:100]
    if kind not in ALL_KINDS:
        raise DataError(f"{where}: components: there is no kind '{kind}'")
    try:
        entry, cls = registry.find(kind, name), registry.load(kind, name)
    except DDRankError:
        return f"{kind} {name}, which is not installed"
    then, now = str(item.get("version"))[:40], entry.version
    if (item.get("distribution"), then) != (entry.distribution, now):
        return f"{kind} {name} of {str(item.get('distribution'))[:40]} {then}, here {entry.owner}"
    return f"{kind} {name} of another source" if item.get("source_digest") != source_digest(cls) else None
