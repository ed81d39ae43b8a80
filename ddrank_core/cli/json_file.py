"""A file that a command writes its findings to, beside what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ddrank_core.errors import ConfigError

json_option = click.option(
    "--json", "output", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures to FILE too."
)


def check_output(path: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ConfigError: one line.
    """
    from tempfile import TemporaryFile

    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"--json {path}: is a folder; name a file")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot write in {path.parent}: {error.strerror}") from error


def write(path: Path, record: Any) -> None:
    """Write plain values as strict JSON.

    Raises:
        ConfigError: one line, if the file cannot be written.
    """
    whole = json.dumps(record, indent=2, allow_nan=False) + "\n"
    try:
        path.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written: {error.strerror}") from error
