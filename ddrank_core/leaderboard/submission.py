"""Read a submission as a stranger may have written it: its folder, and `submission.yaml`.

Nothing of it is imported, executed, unpacked or followed out of the folder.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ddrank_core import yaml
from ddrank_core.config import RunConfig
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.leaderboard.types import Claim, Cost, DistilledFile, Saw, Submission
from ddrank_core.spec import component, parameter
from ddrank_core.structure import Structurer

ABOUT = "submission.yaml"
MAX_FILES = 1000
MAX_BYTES = 64 << 30
"""Of all files together; the largest distilled sets have tens of GiB."""
MAX_TEXT_FILE_BYTES = 256 << 10
"""Of submission.yaml and of run.yaml."""
MAX_DEPTH = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]{1,500}")


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
    if not _NAME.fullmatch(place.parent.name):
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
    count = size = 0
    for path, about in _files(folder, 0):
        count, size = count + 1, size + about.st_size
        if count > MAX_FILES:
            raise DataError(f"{folder}: more than {MAX_FILES} files, which no submission has")
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: the folder has more than {MAX_BYTES >> 30} GiB, which no submission has"
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
    parts = PurePosixPath(text).parts
    if not text or text.startswith(("/", "~")) or "\\" in text or ":" in text or not text.isprintable():
        raise ConfigError(f"{where}: must be the name of a file in the submission, got {text[:60]!r}")
    if ".." in parts:
        raise ConfigError(f"{where}: {text[:60]!r} leads out of the submission")
    path = folder.joinpath(*parts)
    if not path.is_file():
        raise ConfigError(f"{where}: no such file: {text[:200]}")
    return path


# -- submission.yaml ---------------------------------------------------------------------------


def _line(most: int) -> Callable[[str], str | None]:
    """Return what says why a text is no short line of words."""

    def fault(text: str) -> str | None:
        if not text.strip():
            return "must not be empty"
        if len(text) > most:
            return f"{len(text)} characters, of which at most {most} are shown"
        if not text.isprintable():
            return "holds a line break, or a control or invisible character"
        if "<" in text or ">" in text:
            return "holds < or >, which looks like markup; write it in words"
        if text.startswith(("=", "+", "-", "@")):
            return f"starts with {text[0]}, which a spreadsheet takes for a formula"
        return None

    return fault


def _lines(values: Sequence[str]) -> str | None:
    if not 1 <= len(values) <= 100:
        return f"must name 1 to 100, got {len(values)}"
    faults = ((index, _line(100)(value)) for index, value in enumerate(values))
    return next((f"number {index + 1} {problem}" for index, problem in faults if problem), None)


def _url(text: str) -> str | None:
    if not text.startswith("https://"):
        return "must start with https://"
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and parts.username is None and bool(_URL.fullmatch(text))
    except ValueError:
        whole = False
    return None if whole else "is not an address of at most 500 characters"


def _name(text: str) -> str | None:
    whole = _NAME.fullmatch(text)
    return None if whole else "must be letters, digits, '.', '_' and '-' (at most 100)"


def _digest(text: str) -> str | None:
    return None if _DIGEST.fullmatch(text) else "must be a SHA-256: 64 digits, 0 to 9 and a to f"


def _once(values: Sequence[str]) -> str | None:
    return None if len(set(values)) == len(values) else "the same stands twice"


def _few(values: Sequence[object]) -> str | None:
    return None if len(values) <= 20 else f"{len(values)}, of which at most 20 are shown"


@component
class _Claim:
    accuracy: float = parameter("a fraction", minimum=0, maximum=1)
    source: str = parameter("where it stands: the paper and its table", check=_line(200))
    student: str | None = parameter("the network", default=None, check=_line(100))


@component
class _Cost:
    gpu_hours: float = parameter("what the distillation took", minimum=0)
    device: str = parameter("on which device", check=_line(100))


@component
class _Distilled:
    path: str | None = parameter("a file in the submission's folder", default=None)
    url: str | None = parameter("where it is, if not in the folder", default=None, check=_url)
    sha256: str = parameter("its SHA-256", check=_digest)
    bytes: int = parameter("its size", minimum=1)


@component
class _About:
    """What submission.yaml may hold."""

    method: str = parameter("the method's name", check=_line(60))
    authors: tuple[str, ...] = parameter("their names", check=_lines)
    paper: str | None = parameter("its address", default=None, check=_url)
    code: str | None = parameter("its address", default=None, check=_url)
    licence: str = parameter("of the distilled set: an SPDX identifier, or words", check=_line(200))
    dataset: str = parameter("the data set's name", check=_name)
    ipc: int = parameter("images per class", minimum=1, maximum=1_000_000)
    saw: tuple[Saw, ...] = parameter("what the method saw", check=_once)
    teacher: str | None = parameter("whose soft labels it uses, in words", default=None, check=_line(300))
    cost: _Cost | None = parameter("what the distillation took", default=None)
    claimed: tuple[_Claim, ...] = parameter("published accuracies", default=(), check=_few)
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
    path = None if given.path is None else inside(given.path, folder, f"{where}.path")
    return DistilledFile(path=path, url=given.url, sha256=given.sha256, bytes=given.bytes)


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
    for field, path in _paths(config):
        here = Path(os.path.abspath(path)).is_relative_to(root)
        if field.startswith("dataset."):
            if here:
                raise ConfigError(f"{where}: {field}: real data must not come with the submission")
        elif not here:
            raise ConfigError(f"{where}: {field}: {path} is not in the submission")
    declared = submission.distilled.path
    if declared is not None and os.path.abspath(config.distilled.path) != os.path.abspath(declared):
        raise ConfigError(
            f"{where}: distilled.path: {config.distilled.path.name}, but {ABOUT} declares {declared.name}"
        )


def _paths(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Yield every path of a config with its field."""
    found: list[Path] = []

    def note(path: Path) -> str:
        found.append(path)
        return f"\0{len(found) - 1}"

    for field, value in leaves(config.resolved(note)):
        if isinstance(value, str) and value.startswith("\0"):
            yield field, found[int(value[1:])]


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
