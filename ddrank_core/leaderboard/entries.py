"""Walk a folder of submissions: what was measured of each becomes entries, what is broken a line each.

A submission's records are `results/<track>/<contestant>/record.json`. The contestant `method` is its row, the
controls stand beside it. A variant is the same distilled set evaluated with one thing changed, and
`ddrank_core.leaderboard.variants` checks that it is one:

- `method-augmentation-<name>`: another augmentation, for the tables "rank on data augmentation";
- `method-labels-<name>`: another label mapping, with its loss, for the tables "rank on label strategy";
- `method-student-<name>`: another student, a row in that student's table.

`ddrank submission evaluate FOLDER --variant augmentation-none --set recipe.augmentation=none` makes one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import attrs

from ddrank_core.data.distilled import digest as digest_of
from ddrank_core.errors import ConfigError, DataError, DDRankError
from ddrank_core.leaderboard.controls import CONTROLS
from ddrank_core.leaderboard.findings import MAX_CHARACTERS
from ddrank_core.leaderboard.measured import line, measured, read_json, short, take, take_line, typed
from ddrank_core.leaderboard.recomputed import check_own_words
from ddrank_core.leaderboard.sizes import sizes
from ddrank_core.leaderboard.submission import load
from ddrank_core.leaderboard.track import check_dataset
from ddrank_core.leaderboard.types import (
    TRACKS,
    Entry,
    Finding,
    Level,
    Measured,
    Submission,
    Track,
    Variant,
)
from ddrank_core.leaderboard.variants import changed, check_distinct, check_variant, variant_of
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer

_PICTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.png")

MAX_FINDINGS = 1000


@attrs.frozen
class Problem:
    """What is wrong with one submission."""

    where: str
    """The submission's place in the folder."""
    what: str


@attrs.frozen(kw_only=True)
class Board:
    """All that a folder of submissions holds."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    waiting: tuple[str, ...]
    """Slugs of submissions that nobody has evaluated yet."""


def load_board(folder: Path) -> Board:
    """Return the entries of all submissions in a folder; a broken one does not stop the others.

    Raises:
        ConfigError: one line, if there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; it holds <method>/<data set>-ipc<n>/submission.yaml")
    entries: list[Entry] = []
    problems: list[Problem] = []
    waiting: list[str] = []
    structurer = Structurer(default_registry(), Path())
    for place in _submissions(folder):
        where = place.relative_to(folder).as_posix()
        try:
            if place.parent.is_symlink():
                raise DataError(f"{place.parent}: is a symbolic link, which a method's folder must not be")
            submission = load(place)
            found = _entries(submission, structurer)
        except DDRankError as error:
            problems.append(Problem(where, str(error)))
            continue
        entries += found
        waiting += [] if found else [submission.slug]
    return Board(entries=tuple(_told_apart(entries)), problems=tuple(problems), waiting=tuple(waiting))


def _told_apart(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries, with a digest in the name of a data set, or in the protocol's, where several differ.

    A score on other real images, or against networks trained in another way on all of them, is another score,
    so that such rows must not share a table.
    """
    data: dict[str, set[str]] = {}
    recipes: dict[object, set[str]] = {}
    for entry in entries:
        data.setdefault(entry.submission.dataset, set()).add(entry.measured.data)
        recipes.setdefault(_setting(entry), set()).add(entry.measured.full_recipe)
    for entry in entries:
        about, measured = entry.submission, entry.measured
        if len(data[about.dataset]) > 1:
            about = attrs.evolve(about, dataset=f"{about.dataset} (real data {measured.data[:8]})")
        if len(recipes[_setting(entry)]) > 1:
            protocol = f"{measured.protocol}, full data by recipe {measured.full_recipe[:8]}"
            measured = attrs.evolve(measured, protocol=protocol)
        yield attrs.evolve(entry, submission=about, measured=measured)


def _setting(entry: Entry) -> tuple[object, ...]:
    about = entry.submission
    return about.dataset, about.ipc, entry.track, entry.student, entry.measured.protocol


def _submissions(folder: Path) -> Iterator[Path]:
    """Yield the folders two below, in order of their names; links too, which are refused later."""
    for method in _folders(folder):
        yield from _folders(method)


def _folders(folder: Path) -> list[Path]:
    places = folder.iterdir() if folder.is_dir() else ()
    return sorted(place for place in places if place.is_dir() and not place.name.startswith((".", "_")))


# -- one submission ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Run:
    """A record that was read."""

    record: Mapping[str, Any]
    measured: Measured
    student: str
    where: str


def _entries(submission: Submission, structurer: Structurer) -> list[Entry]:
    """Return the entries of one submission.

    Raises:
        DDRankError: one line, for the first thing that is wrong.
    """
    results = submission.folder / "results"
    _check_set(submission)
    findings = _findings(submission)
    found: list[Entry] = []
    for track in TRACKS:
        runs = _runs(results / track, submission, structurer)
        own = runs.get("method")
        if own is not None:
            controls = {name: runs[name].measured for name in CONTROLS if name in runs}
            command = _command(submission, "--track", track)
            found.append(_entry(submission, track, own, controls, findings, command))
        for variant, run in _variants(runs):
            if track != "own":
                raise DataError(f"{run.where}: variants are of the method's own recipe, in results/own")
            check_variant(run.record, own.record if own else None, variant.axis, run.where)
            changes = changed(run.record["config"], own.record["config"], variant.axis) if own else ()
            sets = (part for change in changes for part in ("--set", change))
            command = _command(submission, "--variant", f"{variant.axis}-{variant.name}", *sets)
            found.append(_entry(submission, track, run, {}, findings, command, variant))
    return found


def _check_set(submission: Submission) -> None:
    """Check that the distilled set in the folder is the one that was declared and measured."""
    path, declared = submission.distilled.path, submission.distilled
    # A set of another size is another set, and its digest may take as long as it likes.
    if path is not None and (path.stat().st_size != declared.bytes or digest_of(path) != declared.sha256):
        raise DataError(f"{path}: is not the set that submission.yaml declares, which was measured")


def _runs(folder: Path, submission: Submission, structurer: Structurer) -> dict[str, _Run]:
    """Return the run of each contestant that has a record, whose scores follow from its trials."""
    records = {place.name: place / "record.json" for place in _folders(folder)}
    runs = {name: _run(path, submission) for name, path in records.items() if path.exists()}
    for run in runs.values():
        check_own_words(run.record, structurer, run.where)
    check_distinct({name: run.record for name, run in runs.items()}, str(folder))
    return runs


def _run(path: Path, submission: Submission) -> _Run:
    record, where = read_json(path), str(path)
    dataset = take_line(record, "config.dataset.use", where)
    check_dataset(dataset, submission.dataset, f"{where}: config.dataset")
    student = short(described(take(record, "config.student", dict, where)), f"{where}: config.student")
    return _Run(record=record, measured=measured(record, where), student=student, where=where)


def described(component: Mapping[str, Any]) -> str:
    """Return a component of a record's config in one line: its name and every parameter.

    >>> described({"use": "convnet", "depth": 3})
    'convnet depth=3'
    """
    given = (f"{name}={_shown(value)}" for name, value in component.items() if name != "use")
    return " ".join([_shown(component.get("use")), *given])


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _variants(runs: Mapping[str, _Run]) -> Iterator[tuple[Variant, _Run]]:
    for name, run in runs.items():
        if (variant := variant_of(name)) is not None:
            yield variant, run


def _entry(
    submission: Submission,
    track: Track,
    run: _Run,
    controls: Mapping[str, Measured],
    findings: tuple[Finding, ...],
    command: str,
    variant: Variant | None = None,
) -> Entry:
    image_bytes, label_bytes, teacher_bytes = sizes(run.record, submission.folder, run.where)
    recipe = take(run.record, "config.recipe", dict, run.where)
    return Entry(
        submission=submission,
        track=track,
        student=run.student,
        labels=take_line(recipe, "labels.use", f"{run.where}: config.recipe"),
        measured=run.measured,
        controls=controls,
        image_bytes=image_bytes,
        label_bytes=label_bytes,
        teacher_bytes=teacher_bytes,
        findings=findings,
        command=command,
        augmentation=_augmentation(recipe, run.where),
        variant=variant,
    )


def _augmentation(recipe: Mapping[str, Any], where: str) -> str:
    chain = take(recipe, "augmentation", list, f"{where}: config.recipe")
    field = f"{where}: config.recipe.augmentation"
    return line(", ".join(take(item, "use", str, field) for item in chain) or "none", field)


def _command(submission: Submission, *options: str) -> str:
    return shlex.join(["ddrank", "submission", "evaluate", f"submissions/{submission.slug}", *options])


# -- what was checked --------------------------------------------------------------------------


def _findings(submission: Submission) -> tuple[Finding, ...]:
    """Return what `ddrank submission check` has found; that it was not run, or on other files, is a finding.

    Raises:
        DataError: one line, if it has refused the submission.
    """
    path, again = (
        submission.folder / "check.json",
        f"'ddrank submission check submissions/{submission.slug} --write'",
    )
    if not path.exists():
        text = f"not checked yet: compared neither with the real images nor with its recipe; run {again}"
        return (Finding(level="warning", check="check", text=text),)
    report = read_json(path)
    listed = take(report, "findings", list, str(path))
    if len(listed) > MAX_FINDINGS:
        raise DataError(f"{path}: {len(listed)} findings, of which at most {MAX_FINDINGS} are shown")
    findings = tuple(_finding(item, f"{path}: findings[{index}]") for index, item in enumerate(listed))
    if refusing := next((finding for finding in findings if finding.level == "error"), None):
        raise DataError(f"{path}: refused by its check: {refusing.text}")
    if take(report, "checked", dict, str(path)).get("real data") is None:
        text = f"checked without the real data: compared with no real image; with them, run {again} again"
        findings = (Finding(level="warning", check="check", text=text), *findings)
    checked = take(report, "checked.files", dict, str(path))
    if changed := next((name for name, digest in _digests(submission) if checked.get(name) != digest), None):
        text = f"{changed} is not the file that was checked; run {again} again"
        return (Finding(level="warning", check="check", text=text), *findings)
    return findings


def _digests(submission: Submission) -> Iterator[tuple[str, str]]:
    """Yield the name and the SHA-256 of each file that the row is made of."""
    folder, distilled = submission.folder, submission.distilled
    for path in (
        folder / "submission.yaml",
        submission.recipe,
        *sorted(folder.glob("results/*/*/record.json")),
    ):
        yield path.relative_to(folder).as_posix(), digest_of(path)
    if distilled.path is not None:
        # As declared: that is checked.
        yield distilled.path.relative_to(folder).as_posix(), distilled.sha256


def _finding(item: Any, where: str) -> Finding:
    level = take(item, "level", str, where)
    if level not in get_args(Level):
        raise DataError(f"{where}: level: must be one of {', '.join(get_args(Level))}")
    picture = item.get("picture")
    if picture is not None and not _PICTURE.fullmatch(typed(picture, str, f"{where}: picture")):
        raise DataError(f"{where}: picture: must be the name of a .png file beside the report")
    return Finding(
        level=cast("Level", level),
        check=take_line(item, "check", where),
        text=short(take(item, "text", str, where), f"{where}: text", MAX_CHARACTERS),
        picture=picture,
    )
