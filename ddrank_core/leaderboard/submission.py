"""Read a submission as a stranger may have written it: its folder, and `submission.yaml`.

Nothing of it is imported, executed, unpacked or followed out of the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ddrank_core import yaml
from ddrank_core.config import RunConfig
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.leaderboard import texts
from ddrank_core.leaderboard.types import Claim, Cost, DistilledFile, Saw, Submission
from ddrank_core.spec import component, parameter
from ddrank_core.structure import Structurer

ABOUT = "submission.yaml"
MAX_FILES = 1000
MAX_BYTES = 64 << 30
"""Of all files together; the largest distilled sets have tens of GiB."""
MAX_JSON_BYTES = 128 << 20
"""Of all records and the check's report together, which a board reads; in memory they are many times as
large."""
MAX_TEXT_FILE_BYTES = 256 << 10
"""Of submission.yaml and of run.yaml."""
MAX_DEPTH = 8


def load(folder: Path) -> Submission:
    """Read a submission's folder and its `submission.yaml`.

    Raises:
        ConfigError: one line that names the file and the field.
        DataError: one line, for a folder that holds what no submission may.
    """
    check_folder(folder)
    path = folder / ABOUT
    about = _read(path)
    name = f"{about.dataset}-ipc{about.ipc}"
    # The folder may be given as '.', and its parents be reached through a link.
    place = Path(os.path.abspath(folder))
    if place.name != name:
        raise ConfigError(
            f"{path}: dataset, ipc: the folder of {about.dataset} with IPC {about.ipc} is called {name}, "
            f"not {place.name}"
        )
    if texts.name(place.parent.name):
        raise ConfigError(f"{place.parent}: a method's folder has letters, digits, '.', '_' and '-' only")
    return Submission(
        folder=folder,
        slug=f"{place.parent.name}/{place.name}",
        method=about.method,
        authors=about.authors,
        paper=about.paper,
        code=about.code,
        licence=about.licence,
        dataset=about.dataset,
        ipc=about.ipc,
        saw=about.saw,
        teacher=about.teacher,
        cost=None if about.cost is None else Cost(gpu_hours=about.cost.gpu_hours, device=about.cost.device),
        claimed=tuple(
            Claim(accuracy=claim.accuracy, source=claim.source, student=claim.student)
            for claim in about.claimed
        ),
        distilled=_distilled(about.distilled, folder, f"{path}: distilled"),
        recipe=_recipe(about.recipe, folder, f"{path}: recipe"),
    )


# -- the folder --------------------------------------------------------------------------------


def check_folder(folder: Path) -> None:
    """Check that a folder holds plain files and folders only, and not too many.

    Raises:
        DataError: one line that names the first file that is not allowed.
    """
    count = size = json_size = 0
    for path, about in _files(folder, 0):
        count, size = count + 1, size + about.st_size
        json_size += about.st_size if path.suffix == ".json" else 0
        if count > MAX_FILES:
            raise DataError(f"{folder}: more than {MAX_FILES} files, which no submission has")
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: the folder has more than {MAX_BYTES >> 30} GiB, which no submission has"
            )
        if json_size > MAX_JSON_BYTES:
            raise DataError(
                f"{path}: the records have more than {MAX_JSON_BYTES >> 20} MiB, which no submission's have"
            )


def _files(folder: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file below, with its own size and kind; folders count as files."""
    if depth > MAX_DEPTH:
        raise DataError(f"{folder}: folders within folders, more than {MAX_DEPTH} deep")
    if folder.is_symlink():
        raise DataError(f"{folder}: is a symbolic link, which a submission must not hold")
    try:
        with os.scandir(folder) as found:
            for item in found:
                about, path = item.stat(follow_symlinks=False), Path(item.path)
                _check_kind(path, about)
                yield path, about
                if stat.S_ISDIR(about.st_mode):
                    yield from _files(path, depth + 1)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no such folder; it holds {ABOUT}") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _check_kind(path: Path, about: os.stat_result) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise DataError(f"{path}: is a symbolic link, which a submission must not hold")
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
        raise DataError(f"{path}: is not a plain file")
    if not path.name.isprintable():
        raise DataError(f"{path}: its name holds control characters")


def inside(text: str, folder: Path, where: str) -> Path:
    """Return the plain file of that relative name in the folder.

    Raises:
        ConfigError: one line, if the name leads out of the folder, or nothing has it.
    """
    path = place_inside(text, folder, where)
    if not path.is_file():
        raise ConfigError(f"{where}: no such file: {text[:200]}")
    return path


def place_inside(text: str, folder: Path, where: str) -> Path:
    """Return where a file of that relative name is in the folder, whether there is one or not.

    Raises:
        ConfigError: one line, if the name leads out of the folder.
    """
    parts = PurePosixPath(text).parts
    if not text or text.startswith(("/", "~")) or "\\" in text or ":" in text or not text.isprintable():
        raise ConfigError(f"{where}: must be the name of a file in the submission, got {text[:60]!r}")
    # Longer ones are an OSError wherever they are looked for.
    if len(text) > 1000 or any(len(os.fsencode(part)) > 255 for part in parts):
        raise ConfigError(f"{where}: {text[:60]!r}... is too long for the name of a file")
    if ".." in parts:
        raise ConfigError(f"{where}: {text[:60]!r} leads out of the submission")
    return folder.joinpath(*parts)


# -- submission.yaml ---------------------------------------------------------------------------


def _size(count: int) -> str | None:
    return (
        None
        if count <= MAX_BYTES
        else f"{count}, which is more than the {MAX_BYTES >> 30} GiB of the largest"
    )


@component
class _Claim:
    accuracy: float = parameter("a fraction", minimum=0, maximum=1)
    source: str = parameter("where it stands: the paper and its table", check=texts.short_line(200))
    student: str | None = parameter("the network", default=None, check=texts.short_line(100))


@component
class _Cost:
    gpu_hours: float = parameter("what the distillation took", minimum=0, maximum=1e9)
    device: str = parameter("on which device", check=texts.short_line(100))


@component
class _Distilled:
    path: str | None = parameter("a file in the submission's folder", default=None)
    url: str | None = parameter("where it is, if not in the folder", default=None, check=texts.address)
    sha256: str = parameter("its SHA-256", check=texts.sha256)
    bytes: int = parameter("its size", minimum=1, check=_size)
    made_with: str | None = parameter(
        "how it is made from what lies at url, where that is not the file itself",
        default=None,
        check=texts.short_line(300),
    )


@component
class _About:
    """What submission.yaml may hold."""

    method: str = parameter("the method's name", check=texts.short_line(60))
    authors: tuple[str, ...] = parameter("their names", check=texts.lines)
    paper: str | None = parameter("its address", default=None, check=texts.address)
    code: str | None = parameter("its address", default=None, check=texts.address)
    licence: str = parameter(
        "of the distilled set: an SPDX identifier, or words", check=texts.short_line(200)
    )
    dataset: str = parameter("the data set's name", check=texts.name)
    ipc: int = parameter("images per class", minimum=1, maximum=1_000_000)
    saw: tuple[Saw, ...] = parameter("what the method saw", check=texts.once)
    teacher: str | None = parameter(
        "whose soft labels it uses, in words", default=None, check=texts.short_line(300)
    )
    cost: _Cost | None = parameter("what the distillation took", default=None)
    claimed: tuple[_Claim, ...] = parameter("published accuracies", default=(), check=texts.few)
    distilled: _Distilled = parameter("the distilled set")
    recipe: str = parameter("a run config in the folder", default="run.yaml")


def _read(path: Path) -> _About:
    _check_small(path)
    values = yaml.read(path)
    # No field is a component, so there is nothing to look up.
    registry: Any = None
    about: _About = Structurer(registry, path.parent).structure(values, _About, str(path))
    return about


def _check_small(path: Path) -> None:
    if path.is_file() and path.stat().st_size > MAX_TEXT_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_TEXT_FILE_BYTES >> 10} KiB, which no such file is")


def _distilled(given: _Distilled, folder: Path, where: str) -> DistilledFile:
    if (given.path is None) == (given.url is None):
        raise ConfigError(f"{where}: give either path, a file in the folder, or url")
    if given.made_with is not None and given.url is None:
        raise ConfigError(f"{where}.made_with: goes with url; a file in the folder is there already")
    path = None if given.path is None else inside(given.path, folder, f"{where}.path")
    return DistilledFile(
        path=path, url=given.url, sha256=given.sha256, bytes=given.bytes, made_with=given.made_with
    )


def how_to_get(submission: Submission) -> str:
    """Return how to come by a pinned set that is not here, in the words of a message."""
    pinned = submission.distilled
    if pinned.made_with is None:
        return f"not here; fetch it with 'ddrank submission fetch {submission.folder}'"
    return f"not here; it is made from {pinned.url} by: {pinned.made_with}"


# -- run.yaml ----------------------------------------------------------------------------------


def _recipe(text: str, folder: Path, where: str) -> Path:
    path = inside(text, folder, where)
    _check_small(path)
    # A config may name environment variables, whose values would then stand in messages and records.
    if b"${" in path.read_bytes():
        raise ConfigError(
            f"{path}: holds '${{', an environment variable, which a submission must not ask for"
        )
    return path


def check_contained(config: RunConfig, submission: Submission) -> None:
    """Check that the recipe reads no file but the submission's own; the real data lies elsewhere.

    Raises:
        ConfigError: one line that names the file and the field.
    """
    root, where = os.path.abspath(submission.folder), submission.recipe
    for field, path in paths_of(config):
        if not field.startswith("dataset.") and not Path(os.path.abspath(path)).is_relative_to(root):
            raise ConfigError(f"{where}: {field}: {path} is not in the submission")
    _check_dataset(config, submission)
    declared = submission.distilled.path
    if declared is not None and os.path.abspath(config.distilled.path) != os.path.abspath(declared):
        raise ConfigError(
            f"{where}: distilled.path: {config.distilled.path.name}, but {ABOUT} declares {declared.name}"
        )


def _check_dataset(config: RunConfig, submission: Submission) -> None:
    """Check that the real data are those of whoever evaluates: none are fetched, none come along."""
    where, use = submission.recipe, config.dataset.use
    if getattr(config.dataset.component, "download", False):
        raise ConfigError(
            f"{where}: dataset.download: a submission must not fetch data; leave it out, and fetch them with "
            f"'ddrank data info {use} --set dataset.download=true' in the folder that has submissions/"
        )
    written = dict(leaves(yaml.read(where)["dataset"], "dataset"))
    for field, path in paths_of(config):
        # A default is not written: it starts where the command runs, as in every config.
        if field in written:
            check_real_place(str(written[field]), path, submission.folder, f"{where}: {field}")
        if field.startswith("dataset."):
            _check_readable(path, f"{where}: {field}")


def check_real_place(text: str, path: Path, folder: Path, where: str) -> None:
    """Check where a submission's real data lie, which it writes as `text`: beside submissions/, not in it.

    What lies there may be a link to elsewhere, for that is of whoever evaluates.

    Raises:
        ConfigError: one line.
    """
    submissions = Path(os.path.abspath(folder)).parents[1]
    place = Path(os.path.abspath(path))
    if place.is_relative_to(submissions) or Path(os.path.realpath(place)).is_relative_to(
        os.path.realpath(submissions)
    ):
        raise ConfigError(f"{where}: real data must not come with the submission, got {text[:60]!r}")
    absolute = text.startswith(("/", "~", "\\")) or bool(PureWindowsPath(text).drive)
    if absolute or not place.is_relative_to(submissions.parent):
        raise ConfigError(
            f"{where}: must begin as ../../../datasets does, and lie beside {submissions.name}/ (make a link "
            f"there if it is elsewhere), got {text[:60]!r}"
        )


def _check_readable(path: Path, where: str) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # What is not there, the data set itself says better.
        return
    # A pipe blocks whoever reads it, and a device may never end.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(f"{where}: is neither a plain file nor a folder")


class _Found(str):
    """Stands in a resolved config for a path."""

    path: Path


def paths_of(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Yield every path of a config with its field."""

    def note(path: Path) -> str:
        found = _Found(path)
        found.path = path
        return found

    for field, value in leaves(config.resolved(note)):
        if isinstance(value, _Found):
            yield field, value.path


def leaves(value: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested plain values that holds no other, with its dotted field."""
    if isinstance(value, dict):
        items = [(f"{field}.{key}" if field else str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{field}[{index}]", item) for index, item in enumerate(value)]
    else:
        yield field, value
        return
    if not items:
        yield field, value
    for name, item in items:
        yield from leaves(item, name)
