"""Start a submission from a finished run: the files that its author completes and sends."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import yaml

from ddrank_core.config import DistilledRef, RunConfig, Teacher, load_run, run_from
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.leaderboard.submission import ABOUT, check_contained, load
from ddrank_core.registry import Registry
from ddrank_core.report.folder import RECORD

_DISTILLED, _VIEWS, RECIPE = "distilled.safetensors", "views.safetensors", "run.yaml"

ORDER = (
    *("method", "authors", "paper", "code", "licence", "dataset", "ipc", "saw", "teacher", "cost"),
    *("claimed", "distilled", "recipe"),
)
"""The fields of submission.yaml, as they are written."""


@attrs.frozen(kw_only=True)
class FinishedRun:
    """What a run folder says of its run; the distilled set is still the one that was evaluated."""

    folder: Path
    config: RunConfig
    ipc: int
    sha256: str
    bytes: int
    teachers: str | None
    """The teachers of its soft labels, in words."""


def read_run(folder: Path, registry: Registry) -> FinishedRun:
    """Read a run folder. Relative paths in its record start at this process's folder, as when it was run.

    Raises:
        DDRankError: one line, if it is no run folder, or what it used is no longer there as it was.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_bytes())
        values, teachers = dict(record["config"]), [dict(teacher) for teacher in record["teachers"]]
        digest = str(record["data"]["distilled"]["sha256"])
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; give the folder that 'ddrank run' left"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: not a record; give the folder that 'ddrank run' left") from error
    config = run_from(values, registry, Path(), f"{path}: config")
    distilled = config.distilled.path
    if distilled_file.digest(distilled) != digest:
        raise DataError(f"{path}: data.distilled.sha256: {distilled} has changed since the run; run it again")
    gives_soft = getattr(config.recipe.labels.component, "gives_soft", False)
    return FinishedRun(
        folder=folder,
        config=config,
        ipc=distilled_file.header(distilled).ipc,
        sha256=digest,
        bytes=distilled.stat().st_size,
        teachers="; ".join(map(_in_words, teachers)) or None if gives_soft else None,
    )


def check_folder(folder: Path, run: FinishedRun) -> None:
    """Check that a submission of the run can be started there.

    Raises:
        DataError: one line.
    """
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder}: exists; choose another folder, or remove it")
    name = f"{run.config.dataset.use}-ipc{run.ipc}"
    if folder.name != name:
        raise DataError(
            f"{folder}: a submission of {run.folder} must be a folder METHOD/{name}, "
            f"such as submissions/my-method/{name}"
        )


def write_submission(folder: Path, run: FinishedRun, said: Mapping[str, Any], registry: Registry) -> None:
    """Write a submission: what its author said, the recipe, its files. All of it or nothing.

    Raises:
        DDRankError: one line, if it cannot be written, or would be refused as a submission.
    """
    check_folder(folder, run)
    try:
        with _appearing(folder) as unfinished:
            config = _with_local_files(run.config, unfinished)
            (unfinished / ABOUT).write_text(_yaml(_about(run, said)), encoding="utf-8")
            (unfinished / RECIPE).write_text(_recipe(config, run, unfinished, folder), encoding="utf-8")
            if distilled_file.digest(unfinished / _DISTILLED) != run.sha256:
                raise DataError(f"{run.config.distilled.path}: changed while it was copied; try again")
            check_contained(load_run(unfinished / RECIPE, registry), load(unfinished))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error


def _in_words(teacher: Mapping[str, Any]) -> str:
    accuracy = teacher.get("accuracy")
    known = f", {100 * accuracy:.1f} % of the test images right" if isinstance(accuracy, float) else ""
    return f"{teacher.get('use')}{known}"


def _with_local_files(config: RunConfig, folder: Path) -> RunConfig:
    """Copy the files of a config but for the real data into the folder; return the config with the copies."""

    def copied(path: Path, name: str) -> Path:
        return Path(shutil.copyfile(path, folder / name))

    views = config.distilled.views
    local = DistilledRef(
        path=copied(config.distilled.path, _DISTILLED),
        views=None if views is None else copied(views, _VIEWS),
        ipc=config.distilled.ipc,
    )
    teachers = tuple(
        Teacher(
            network=teacher.network,
            checkpoint=copied(path, f"teacher-{index}{path.suffix}")
            if (path := teacher.checkpoint)
            else None,
            accuracy=teacher.accuracy,
        )
        for index, teacher in enumerate(config.teachers)
    )
    evolved: RunConfig = attrs.evolve(  # type: ignore[misc]  # mypy loses attrs here
        config, distilled=local, teachers=teachers
    )
    return evolved


def _recipe(config: RunConfig, run: FinishedRun, unfinished: Path, folder: Path) -> str:
    """Return the text of run.yaml: its own files by name, others as they are seen from the folder to be."""

    def local(path: Path) -> str:
        own = path.is_relative_to(unfinished)
        return Path(os.path.relpath(path, unfinished if own else folder)).as_posix()

    values = config.resolved(local)
    values["distilled"]["ipc"] = run.ipc
    return f"# The recipe as it was run, with every default written out.\n{_yaml(values)}"


def _about(run: FinishedRun, said: Mapping[str, Any]) -> dict[str, Any]:
    about = {
        **said,
        "dataset": run.config.dataset.use,
        "ipc": run.ipc,
        "distilled": {"path": _DISTILLED, "sha256": run.sha256, "bytes": run.bytes},
        "recipe": RECIPE,
    }
    return {name: about[name] for name in ORDER if about.get(name) is not None}


def _yaml(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=110)
    return text


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a folder of the same two last names, which becomes `folder` at the end; a failure leaves nothing.

    What is wrong in it is said of the folder to be.
    """
    place = Path(os.path.abspath(folder))
    new = [parent for parent in place.parents if not parent.exists()]
    hidden = place.parent / f".unfinished-{uuid.uuid4().hex}"
    unfinished = hidden / place.parent.name / place.name
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(place)
        shutil.rmtree(hidden)
    except BaseException as error:
        shutil.rmtree(hidden, ignore_errors=True)
        for parent in new:
            # Not empty: somebody else has put something there.
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, DDRankError):
            raise type(error)(str(error).replace(str(unfinished), str(folder))) from error
        raise
