"""Check a submission before any training: each thing that is wrong, or to be known, is a finding.

Nothing that a submission brings is executed. What needs the real data is left out, and said to be, where that
is not at hand.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core import __version__
from ddrank_core.config import RunConfig
from ddrank_core.data import distilled as distilled_file
from ddrank_core.engine.prepare import check_real, working_space
from ddrank_core.engine.prepared import real_digest
from ddrank_core.engine.rehearse import fault
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.audit import PARTS
from ddrank_core.leaderboard.cost import check_cost
from ddrank_core.leaderboard.decoding import check_pictures
from ddrank_core.leaderboard.findings import Findings
from ddrank_core.leaderboard.record_check import check_records
from ddrank_core.leaderboard.said import check_views
from ddrank_core.leaderboard.set_check import (
    Loaded,
    check_bytes,
    check_class_order,
    check_described,
    check_file,
    check_images,
    check_labels,
)
from ddrank_core.leaderboard.submission import ABOUT, load
from ddrank_core.leaderboard.track import config_of
from ddrank_core.leaderboard.types import Finding, Submission
from ddrank_core.registry import Registry
from ddrank_core.types import RealData

if TYPE_CHECKING:
    from torch import Tensor

REPORT = "check.json"
SCHEMA_VERSION = 1
_PICTURE = re.compile(r"check-[a-z-]+\.png")


def check_folder(
    folder: Path, registry: Registry, pictures: Path | None = None
) -> tuple[Submission | None, RealData | None, list[Finding]]:
    """Read a submission and the real data that it is of, and check it.

    `pictures` is a folder for what findings show. The submission is None where it cannot be read, the real
    data where they are not at hand.
    """
    findings = Findings()
    submission: Submission | None = None
    real: RealData | None = None
    with findings.refusing("schema"):
        submission = load(folder)
    if submission is None:
        return None, None, findings.all
    with findings.refusing("schema"):
        config = read_recipe(submission, registry)
        try:
            real = real_data(config, submission)
        except DataError as error:
            findings.note(
                "warning",
                "real data",
                f"not compared with real images, for they cannot be read: {error}",
            )
    if any(finding.level == "error" for finding in findings.all):
        return submission, None, findings.all
    return submission, real, [*findings.all, *check(submission, registry, real, pictures)]


def check(
    submission: Submission, registry: Registry, real: RealData | None, pictures: Path | None = None
) -> list[Finding]:
    """Return what is wrong with a submission, and what must be known of it, in the order of the checks."""
    findings = Findings()
    config: RunConfig | None = None
    with findings.refusing("schema"):
        config = read_recipe(submission, registry)
    if config is None:
        return findings.all
    loaded = check_file(submission, config, findings)
    if loaded is not None:
        _check_set(loaded, submission, config, real, pictures, findings)
    if config.protocol.component.test_epochs(1):
        findings.note(
            "warning",
            "protocol",
            f"{submission.recipe}: protocol: {config.protocol.use} selects on the test set: its numbers are "
            "optimistic",
        )
    with findings.refusing("cost"):
        check_cost(config, loaded, real, registry, str(submission.recipe), findings)
        # What cannot be trained has no record, and its plan alone may not fit in memory.
        check_records(submission, registry, real, loaded, findings)
    return findings.all


def read_recipe(submission: Submission, registry: Registry) -> RunConfig:
    """Return the submission's own recipe, which reads no file but the submission's and the real data.

    Raises:
        DDRankError: one line that names the file and the field.
    """
    return config_of(submission, "own", registry)


def real_data(config: RunConfig, submission: Submission) -> RealData:
    """Read the real data set that a recipe names.

    Raises:
        DataError: one line, if it is not there.
    """
    with fault(f"{submission.recipe}: dataset"):
        real = config.dataset.component.load()
    check_real(real, f"dataset {config.dataset.use}")
    return real


def _check_set(
    loaded: Loaded,
    submission: Submission,
    config: RunConfig,
    real: RealData | None,
    pictures: Path | None,
    findings: Findings,
) -> None:
    fits = check_described(loaded, submission, config, real, findings)
    images_unit: Tensor | None = None
    if fits and real is not None:
        with findings.refusing("image space"):
            images_unit = _unit(loaded, config, real)
    if images_unit is not None and real is not None:
        check_class_order(loaded, images_unit, real, findings)
    check_labels(loaded, submission, config, findings)
    with findings.refusing("labels"):
        check_views(config, loaded.distilled)
    if images_unit is not None and real is not None:
        check_images(images_unit, real, _drawer(pictures), findings)
        check_pictures(submission.folder, images_unit, loaded.distilled.labels, findings)
    check_bytes(loaded, config, findings)


def _unit(loaded: Loaded, config: RunConfig, real: RealData) -> Tensor:
    """Return the distilled images in [0, 1] units, not clipped, float32 [N, C, H, W]."""
    import torch

    distilled = loaded.distilled
    if distilled.space.kind != "zca":
        return distilled_file.to_unit(distilled.images, distilled.space)
    return working_space(config, real, torch.device("cpu")).to_unit(distilled.images)


def _drawer(pictures: Path | None) -> Callable[[str, Callable[[Path], None]], str | None]:
    def draw(name: str, paint: Callable[[Path], None]) -> str | None:
        if pictures is None:
            return None
        paint(pictures / name)
        return name

    return draw


# -- the report --------------------------------------------------------------------------------


def report(submission: Submission, real: RealData | None, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as JSON values, with the digests of what was checked."""
    data = None
    if real is not None:
        data = {part: real_digest(real, part) for part in PARTS}
    return {
        "schema_version": SCHEMA_VERSION,
        "ddrank": __version__,
        "submission": submission.slug,
        "checked": {"files": _digests(submission), "real data": data},
        "findings": [attrs.asdict(_portable(finding, submission.folder)) for finding in findings],
    }


def _portable(finding: Finding, folder: Path) -> Finding:
    """Return a finding whose files start in the submission's folder, wherever that is."""
    return attrs.evolve(finding, text=re.sub(rf"(?<![\w./-]){re.escape(str(folder))}/", "", finding.text))


def _digests(submission: Submission) -> Mapping[str, str]:
    """Return the SHA-256 of every file that was checked, by its name in the folder."""
    folder, distilled = submission.folder, submission.distilled.path
    files = [folder / ABOUT, submission.recipe, *sorted(folder.glob("results/*/*/record.json"))]
    # One of another size was not read, and its digest may take as long as it likes.
    if distilled is not None and distilled.stat().st_size == submission.distilled.bytes:
        files.append(distilled)
    there = (path for path in files if path.is_file())
    return {path.relative_to(folder).as_posix(): distilled_file.digest(path) for path in there}


def write(record: Mapping[str, Any], pictures: Path, folder: Path) -> None:
    """Put the report and its pictures into the submission, in place of an earlier check's.

    `pictures` holds the pictures that the check has drawn. Each file appears whole or not at all, the report
    last.

    Raises:
        DataError: one line, if they cannot be written.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as name:
            unfinished = Path(name)
            (unfinished / REPORT).write_text(text, encoding="utf-8")
            for path in folder.glob("check-*.png"):
                if _PICTURE.fullmatch(path.name):
                    path.unlink()
            for path in sorted(pictures.glob("check-*.png")):
                (unfinished / path.name).write_bytes(path.read_bytes())
                os.replace(unfinished / path.name, folder / path.name)
            os.replace(unfinished / REPORT, folder / REPORT)
    except OSError as error:
        raise DataError(f"{folder}: the check cannot be written: {error.strerror or error}") from error
