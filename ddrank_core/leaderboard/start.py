"""Start a submission from a finished run: the files that its author completes and sends."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import yaml

from ddrank_core.config import DistilledRef, RunConfig, Teacher, load_run, run_from
from ddrank_core.data import distilled as distilled_file
from ddrank_core.data import stored_views
from ddrank_core.data.distilled import DistilledHeader
from ddrank_core.engine.checkpoints import load_checkpoint, weights_digest
from ddrank_core.engine.rehearse import fault
from ddrank_core.engine.train import build
from ddrank_core.errors import DataError, DDRankError
from ddrank_core.leaderboard.cost import check_network
from ddrank_core.leaderboard.measured import read_json
from ddrank_core.leaderboard.submission import ABOUT, check_contained, check_real_place, load, paths_of
from ddrank_core.leaderboard.track import NAMELESS, check_dataset
from ddrank_core.protocols import Architecture
from ddrank_core.registry import Registry
from ddrank_core.report.folder import RECORD

_DISTILLED, _VIEWS, RECIPE = "distilled.safetensors", "views.safetensors", "run.yaml"

ORDER = (
    *("method", "authors", "paper", "code", "licence", "dataset", "ipc", "saw", "teacher", "cost"),
    *("claimed", "distilled", "recipe"),
)
"""The fields of submission.yaml, as they are written."""


@attrs.frozen(kw_only=True)
class Pinned:
    """Where a distilled set lies that the repository is not to hold."""

    url: str
    made_with: str | None = None
    """How it is made from what lies there, in words; None where it lies there itself."""


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

    def files(self) -> dict[str, Path]:
        """Return the files that the submission takes along, each by its name there."""
        distilled = self.config.distilled
        checkpoints = [teacher.checkpoint for teacher in self.config.teachers]
        return {
            _DISTILLED: distilled.path,
            **({} if distilled.views is None else {_VIEWS: distilled.views}),
            **{
                _teacher_file(index, path): path for index, path in enumerate(checkpoints) if path is not None
            },
        }


def _teacher_file(index: int, path: Path) -> str:
    return f"teacher-{index}{path.suffix}"


def read_run(folder: Path, registry: Registry) -> FinishedRun:
    """Read a run folder. Relative paths in its record start at this process's folder, as when it was run.

    The folder may be a stranger's, and what it names is copied to be published: each file must be what it is
    named as, and the one that was used.

    Raises:
        DDRankError: one line, if it is no run folder, or what it used is no longer there as it was.
    """
    path, hint = folder / RECORD, "give the folder that 'ddrank run' left"
    try:
        record = read_json(path)
    except DataError as error:
        raise DataError(f"{error}; {hint}") from error
    try:
        values, teachers = dict(record["config"]), [dict(teacher) for teacher in record["teachers"]]
        digest = str(record["data"]["distilled"]["sha256"])
        asks = "${" in json.dumps(values)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: not a record; {hint}") from error
    if asks:
        raise DataError(f"{path}: config: holds '${{', an environment variable, which no record does")
    config = run_from(values, registry, Path(), f"{path}: config")
    distilled = config.distilled.path
    if distilled_file.digest(distilled) != digest:
        raise DataError(f"{path}: data.distilled.sha256: {distilled} has changed since the run; run it again")
    about = distilled_file.header(distilled)
    _check_views(config, about)
    _check_teachers(config, teachers, about, path)
    gives_soft = getattr(config.recipe.labels.component, "gives_soft", False)
    return FinishedRun(
        folder=folder,
        config=config,
        ipc=about.ipc,
        sha256=digest,
        bytes=distilled.stat().st_size,
        teachers="; ".join(map(_in_words, config.teachers, teachers)) or None if gives_soft else None,
    )


def _check_views(config: RunConfig, about: DistilledHeader) -> None:
    """Check that the file of views is one, for the distilled set: a record does not state its digest."""
    if config.distilled.views is not None:
        _, height, width = about.image_shape
        size = (height, width)
        stored_views.load(config.distilled.views, images=about.n, num_classes=about.num_classes, size=size)


def _check_teachers(
    config: RunConfig, stated: Sequence[Mapping[str, Any]], about: DistilledHeader, path: Path
) -> None:
    """Check that each checkpoint holds the weights that the run has used."""
    for index, teacher in enumerate(config.teachers):
        if teacher.checkpoint is None:
            continue
        where = f"{path}: teachers[{index}]"
        if index >= len(stated):
            raise DataError(
                f"{where}: missing, for no training asked that teacher; take teachers out of the config, and "
                "run it again"
            )
        field = f"{path}: config.teachers[{index}]"
        check_network(teacher.network, field)
        with fault(field):
            network = build(_untrained(teacher), about.num_classes, about.image_shape, 0)
        load_checkpoint(network, teacher.checkpoint, f"{field}.checkpoint")
        if weights_digest(network) != stated[index].get("digest"):
            raise DataError(f"{where}.digest: {teacher.checkpoint} has changed since the run; run it again")


def _untrained(teacher: Teacher) -> Architecture:
    """Return a teacher's architecture without its library's weights, which would be downloaded."""
    component: Any = teacher.network.component
    if getattr(component, "pretrained", False):
        component = attrs.evolve(component, pretrained=False)
    architecture: Architecture = component
    return architecture


def check_folder(folder: Path, run: FinishedRun) -> None:
    """Check that a submission of the run can be started there.

    Raises:
        DataError: one line.
    """
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder}: exists; choose another folder, or remove it")
    use = run.config.dataset.use
    free = use in NAMELESS or "/" in use
    name = f"{'DATASET' if free else use}-ipc{run.ipc}"
    if folder.name != name and not (free and folder.name.endswith(f"-ipc{run.ipc}")):
        raise DataError(
            f"{folder}: a submission of {run.folder} must be a folder METHOD/{name}, "
            f"such as submissions/my-method/{name}"
        )
    check_dataset(use, _dataset(folder, run), f"{folder}: dataset")


def _dataset(folder: Path, run: FinishedRun) -> str:
    """Return what the submission calls its data set: the component's name, or that of the folder."""
    return folder.name.removesuffix(f"-ipc{run.ipc}")


def write_submission(
    folder: Path, run: FinishedRun, said: Mapping[str, Any], registry: Registry, pinned: Pinned | None = None
) -> None:
    """Write a submission: what its author said, the recipe, its files. All of it or nothing.

    A set that is `pinned` is here too, but left out of what git takes; a picture shows it instead.

    Raises:
        DDRankError: one line, if it cannot be written, or would be refused as a submission.
    """
    check_folder(folder, run)
    try:
        with _appearing(folder) as unfinished:
            config = _with_local_files(run, unfinished)
            (unfinished / ABOUT).write_text(_yaml(_about(folder, run, said, pinned)), encoding="utf-8")
            if pinned is not None:
                _show(unfinished)
            (unfinished / RECIPE).write_text(_recipe(config, run, unfinished, folder), encoding="utf-8")
            if distilled_file.digest(unfinished / _DISTILLED) != run.sha256:
                raise DataError(f"{run.config.distilled.path}: changed while it was copied; try again")
            submission = load(unfinished)
            _check_real_places(run, folder)
            check_contained(load_run(unfinished / RECIPE, registry), submission)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error


def _check_real_places(run: FinishedRun, folder: Path) -> None:
    """Check that the real data lie where a submission in that folder may have them."""
    for field, path in paths_of(run.config):
        if field.startswith("dataset."):
            text = Path(os.path.relpath(path, folder)).as_posix()
            check_real_place(text, path, folder, f"{folder / RECIPE}: {field}")


def _in_words(teacher: Teacher, stated: Mapping[str, Any]) -> str:
    accuracy = stated.get("accuracy")
    known = f", {100 * accuracy:.1f} % of the test images right" if isinstance(accuracy, float) else ""
    return f"{teacher.network.use}{known}"


def _with_local_files(run: FinishedRun, folder: Path) -> RunConfig:
    """Copy the files of a run but for the real data into the folder; return its config with the copies."""
    for name, path in run.files().items():
        shutil.copyfile(path, folder / name)
    config = run.config
    local = DistilledRef(
        path=folder / _DISTILLED,
        views=None if config.distilled.views is None else folder / _VIEWS,
        ipc=config.distilled.ipc,
    )
    teachers = tuple(
        Teacher(
            network=teacher.network,
            checkpoint=folder / _teacher_file(index, source) if (source := teacher.checkpoint) else None,
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
    if "download" in values["dataset"]:
        # It was there for the run; who checks a submission has the data, or fetches them by a command.
        values["dataset"]["download"] = False
    return f"# The recipe as it was run, with every default written out.\n{_yaml(values)}"


def _show(folder: Path) -> None:
    from ddrank_core.leaderboard.site.drawn import images_png
    from ddrank_core.leaderboard.site.pictures import IMAGES

    (folder / ".gitignore").write_text(f"/{_DISTILLED}\n", encoding="utf-8")
    picture = images_png(folder / _DISTILLED)
    if picture is not None:
        (folder / IMAGES).write_bytes(picture)


def _about(folder: Path, run: FinishedRun, said: Mapping[str, Any], pinned: Pinned | None) -> dict[str, Any]:
    place = {"path": _DISTILLED} if pinned is None else attrs.asdict(pinned, filter=lambda _, value: value)
    about = {
        **said,
        "dataset": _dataset(folder, run),
        "ipc": run.ipc,
        "distilled": {**place, "sha256": run.sha256, "bytes": run.bytes},
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
