"""Text files that are added to, line by line, by one run after another."""

from __future__ import annotations

import os
from pathlib import Path

from ddrank_core import ConfigError, RunStarted

_BLOCK = 1 << 16
"""How many bytes of a file's end are looked at at a time."""


class Appended:
    """A file whose lines are each with the operating system when `add` returns.

    What a process that was killed left of a last line is cut off, so that every line is whole.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_to_whole_lines(path)
        # Bytes of a path that are not UTF-8 must not end a run.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
        self.is_empty = self._file.tell() == 0

    def add(self, line: str) -> None:
        """Write one line; `line` has no line break in it."""
        self._file.write(f"{line}\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def place(path: Path | None, event: RunStarted, name: str) -> Path:
    """Return the path that was given, or the file or folder `name` in the run folder.

    Raises:
        ConfigError: if there is neither.
    """
    if path is not None:
        return path
    if event.folder is None:
        raise ConfigError("this run leaves no folder; say where to write")
    return event.folder / name


def check_file(path: Path | None) -> None:
    """Refuse a path that was given and cannot be written.

    Raises:
        ConfigError: one line that names it.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it")
    check_folder(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{path}: cannot be written: no permission")


def check_folder(path: Path | None) -> None:
    """Refuse a folder that was given, is not there, and cannot be made; or that cannot be written to.

    Raises:
        ConfigError: one line that names what is in the way.
    """
    if path is None:
        return
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        raise ConfigError(f"{there}: is a file, and must be a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there}: cannot be written: no permission")


def first_line(path: Path) -> str:
    """Return a file's first line without its end, empty where there is no file or nothing in it."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return file.readline(_BLOCK).rstrip("\r\n")
    except FileNotFoundError:
        return ""


def _cut_to_whole_lines(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
