"""Whether a submission's records are of this submission: its config, its data, these plugins, its trials."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from ddrank_core import __version__
from ddrank_core.config import RunConfig
from ddrank_core.engine.plan import Plan, make_plan
from ddrank_core.engine.prepared import real_digest
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.leaderboard.controls import CONTROLS
from ddrank_core.leaderboard.findings import Findings, listed
from ddrank_core.leaderboard.measured import read_json, take, typed
from ddrank_core.leaderboard.recomputed import check_scores
from ddrank_core.leaderboard.submission import leaves
from ddrank_core.leaderboard.track import config_of
from ddrank_core.leaderboard.types import TRACKS, Axis, Submission, Track
from ddrank_core.leaderboard.variants import check_variant
from ddrank_core.registry import ALL_KINDS, Registry
from ddrank_core.report.record import components_of, strict_json
from ddrank_core.sources import source_digest
from ddrank_core.structure import Structurer
from ddrank_core.types import RealData

METHOD, RECORD, RESULTS = "method", "record.json", "results"
CHECK = "record"
_VARIANT = re.compile(r"method-(augmentation|labels|student)-[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
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
        found = _VARIANT.fullmatch(self.contestant)
        return cast("Axis", found[1]) if found else None


@attrs.frozen(kw_only=True)
class _Checking:
    """What the records of a track are held against."""

    submission: Submission
    config: RunConfig
    plan: Plan
    registry: Registry
    real: RealData | None


def check_records(
    submission: Submission,
    registry: Registry,
    real: RealData | None,
    own_rate: float | None,
    findings: Findings,
) -> None:
    """Check every record in `results/`; `own_rate` is the learning rate that the distilled set brings."""
    places = list(_places(submission, findings))
    if not places:
        folder = submission.folder / RESULTS
        findings.note("info", CHECK, f"{folder}: no record yet; 'ddrank submission evaluate' makes them")
    for track in TRACKS:
        mine = [place for place in places if place.track == track]
        if not mine:
            continue
        with findings.refusing(CHECK):
            config = config_of(submission, track, registry)
            plan = _plan(config, own_rate if track == "own" else None, registry)
            checking = _Checking(
                submission=submission, config=config, plan=plan, registry=registry, real=real
            )
            _check_track(mine, checking, findings)


def _plan(config: RunConfig, own_rate: float | None, registry: Registry) -> Plan:
    structurer = Structurer(registry, Path())
    hard, cross_entropy = structurer.chosen("label-mapping", "hard"), structurer.chosen("loss", "ce")
    return make_plan(config, own_rate, hard, cross_entropy)


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
    for place in places:
        if place.contestant not in records:
            continue
        record, where = records[place.contestant], str(place.path)
        config, plan = checking.config, None if place.variant else checking.plan
        with findings.refusing(CHECK):
            _check_config(record, records.get(METHOD), place, config)
            _check_data(record, place, checking.submission, checking.real)
            check_scores(record, config, plan, where)
            _check_versions(record, config, place, checking.registry, findings)
            findings.note(
                "info", CHECK, f"{where}: its scores follow from its {len(record['trials'])} trials"
            )


# -- config ------------------------------------------------------------------------------------


def _check_config(
    record: Mapping[str, Any], method: Mapping[str, Any] | None, place: _Place, config: RunConfig
) -> None:
    where = str(place.path)
    if place.variant is not None:
        check_variant(record, method, place.variant, where)
        return
    ours = dict(leaves(strict_json(config.resolved(lambda path: f"{_PATH}{path.name}"))))
    theirs = dict(leaves(take(record, "config", dict, where)))
    for field in sorted(ours.keys() | theirs.keys()):
        if _is_free(field, ours, place.contestant):
            continue
        if not _same(ours.get(field, _PATH), theirs.get(field, ())):
            raise DataError(
                f"{where}: config.{field}: {_shown(theirs, field)}, but the recipe says "
                f"{_shown(ours, field)}; evaluate it again"
            )


def _is_free(field: str, ours: Mapping[str, Any], contestant: str) -> bool:
    """Return whether a field may differ: a name, where the real data lies, and which set a control is."""
    if field.startswith("dataset."):
        return str(ours.get(field, "")).startswith(_PATH)
    return field == "name" or (contestant != METHOD and field.startswith("distilled."))


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and ours.startswith(_PATH):
        return isinstance(theirs, str) and bool(ours[1:]) and re.split(r"[/\\]", theirs)[-1] == ours[1:]
    return bool(ours == theirs) and isinstance(ours, bool) == isinstance(theirs, bool)


def _shown(values: Mapping[str, Any], field: str) -> str:
    return str(values[field]).lstrip(_PATH)[:60] if field in values else "nothing"


# -- data --------------------------------------------------------------------------------------


def _check_data(
    record: Mapping[str, Any], place: _Place, submission: Submission, real: RealData | None
) -> None:
    where = str(place.path)
    if place.contestant not in CONTROLS:
        _check_equal(record, "data.distilled.sha256", submission.distilled.sha256, where)
    if real is None:
        return
    _check_equal(record, "data.dataset.train_sha256", real_digest(real, "train"), where)
    _check_equal(record, "data.dataset.test_sha256", real_digest(real, "test"), where)
    _check_equal(record, "data.dataset.test_images", len(real.test_labels), where)
    _check_equal(record, "data.dataset.classes", list(real.class_names), where)
    _check_equal(record, "data.dataset.image_shape", list(real.image_shape), where)
    _check_equal(record, "data.distilled.images", submission.ipc * real.num_classes, where)


def _check_equal(record: Mapping[str, Any], field: str, expected: Any, where: str) -> None:
    found = take(record, field, type(expected), where)
    if found != expected:
        raise DataError(
            f"{where}: {field}: {str(found)[:64]}, but it is {str(expected)[:64]} here; evaluate it again"
        )


# -- plugins -----------------------------------------------------------------------------------


def _check_versions(
    record: Mapping[str, Any], config: RunConfig, place: _Place, registry: Registry, findings: Findings
) -> None:
    """Warn where a component was another then: its plugin's version, or its source."""
    where = str(place.path)
    listed_then = [
        typed(item, dict, f"{where}: components") for item in take(record, "components", list, where)
    ]
    if place.variant is None:
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
