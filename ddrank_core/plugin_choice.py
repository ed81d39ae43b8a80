"""Which plugins beside ddrank's own are used: those installed, fewer on request, and one-off files.

A choice is made by the launcher's options `--only`, `--without` and `--plugin`, and by the environment
variable DDRANK_PLUGINS; it is made before anything of a plugin is read or imported.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import attrs

from ddrank_core.errors import ConfigError, nearest
from ddrank_core.plugins import FIRST_PARTY, Fault, Plugin, installed

ENVIRONMENT = "DDRANK_PLUGINS"
"""Distributions that may be used beside ddrank's own, separated by commas; empty for none."""


@attrs.frozen
class Choice:
    """What is asked for; the default is everything that is installed."""

    only: tuple[str, ...] = ()
    """Distributions, of which nothing else is used; none means that this is not asked for."""
    without: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


_CHOICE: ContextVar[Choice] = ContextVar("ddrank_plugin_choice", default=Choice())  # noqa: B039  # it is frozen


@contextmanager
def using(choice: Choice) -> Iterator[None]:
    """Let every registry that is made inside use what `choice` says, and Python import its files.

    Raises:
        ConfigError: one line, if a file cannot be a plugin.
    """
    finder = _Files(choice.files)
    token = _CHOICE.set(choice)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _CHOICE.reset(token)
        for name in finder.paths:
            sys.modules.pop(name, None)


def asked() -> Choice:
    """Return what is asked for here, so that another process can be asked for the same."""
    return _CHOICE.get()


def chosen() -> tuple[tuple[Plugin, ...], tuple[Fault, ...]]:
    """Return the plugins to use, and those that are installed and left out, each with what leaves it out.

    Raises:
        ConfigError: one line, if the choice names what is not installed.
    """
    choice, everyone = _CHOICE.get(), installed()
    keep, source = _kept(choice, everyone)
    drop = {_checked(name, everyone, f"--without {name}") for name in choice.without}
    if FIRST_PARTY in drop:
        raise ConfigError(f"--without {FIRST_PARTY}: its own plugins are always used; name another")
    used: list[Plugin] = []
    left_out: list[Fault] = []
    for plugin in everyone:
        name = _canonical(plugin.distribution)
        if name in drop:
            left_out.append(Fault(plugin, f"left out by --without {plugin.distribution}", ""))
        elif plugin.is_first_party or keep is None or name in keep:
            used.append(plugin)
        else:
            left_out.append(Fault(plugin, f"left out by {source}", ""))
    return (*used, *map(_file_plugin, _Files(choice.files).paths.values())), tuple(left_out)


def _kept(choice: Choice, everyone: Sequence[Plugin]) -> tuple[set[str] | None, str]:
    """Return the distributions that may be used, None for all, and what says so; an option comes first."""
    if choice.only:
        names, source = choice.only, " ".join(f"--only {name}" for name in choice.only)
    elif (listed := os.environ.get(ENVIRONMENT)) is not None:
        names = tuple(name.strip() for name in listed.split(",") if name.strip())
        source = f"{ENVIRONMENT}={listed}"
    else:
        return None, ""
    return {_checked(name, everyone, source) for name in names}, source


def _checked(name: str, everyone: Sequence[Plugin], source: str) -> str:
    there = {_canonical(plugin.distribution): plugin.distribution for plugin in everyone}
    if _canonical(name) in there:
        return _canonical(name)
    others = [distribution for distribution in there.values() if distribution != FIRST_PARTY]
    listing = f"; there are {', '.join(others)}" if others else "; there are none beside ddrank's own"
    hint = nearest(name, others) or listing
    raise ConfigError(f"{source}: no distribution '{name}' with plugins is installed{hint}")


def _canonical(name: str) -> str:
    """Return a distribution's name as packaging compares it.

    >>> _canonical("Acme_Losses")
    'acme-losses'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


# -- one-off files -----------------------------------------------------------------------------


class _Files(MetaPathFinder):
    """Lets Python import each file under its own name, without the folder that it is in."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.paths: Mapping[str, Path] = _by_module(files)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.paths.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def _by_module(files: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        where, path = f"--plugin {file}", file.resolve()
        if not path.is_file():
            raise ConfigError(f"{where}: no such file")
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise ConfigError(f"{where}: must be named as Python can import it, such as my_loss.py")
        if found.setdefault(path.stem, path) != path or _is_taken(path):
            raise ConfigError(f"{where}: there is another module '{path.stem}'; rename the file")
    return found


def _is_taken(path: Path) -> bool:
    try:
        spec = find_spec(path.stem)
    except ValueError:  # of a module that was made at run time
        return True
    # The file itself is found where Python looks into the working directory.
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def _file_plugin(path: Path) -> Plugin:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load = partial(import_module, path.stem)
    return Plugin(path.stem, path.stem, f"file {path.name}", digest[:12], load, file=path)
