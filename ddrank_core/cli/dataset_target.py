"""Which data set a command is about: the one of a config, or one by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddrank_core import yaml
from ddrank_core.errors import ConfigError
from ddrank_core.protocols import Dataset
from ddrank_core.registry import Registry
from ddrank_core.spec import component, parameter
from ddrank_core.structure import Chosen, Structurer


@component
class _Target:
    dataset: Chosen[Dataset] = parameter("the real data set")


def resolve(
    target: str, overrides: Sequence[str], registry: Registry, given: Mapping[str, Any] | None = None
) -> Chosen[Dataset]:
    """Return the data set of the config `target`, or the one of that name; the rest of a config is not read.

    `given` are parameters that come before `overrides`. Relative paths start at the config's folder, or at
    the working directory for a name.

    Raises:
        ConfigError: one line that names the config and the field.
    """
    path = Path(target)
    is_config = path.suffix in (".yaml", ".yml")
    chosen = _dataset_of(path) if is_config else {"use": target}
    chosen.update(given or {})
    for override in overrides:
        _override(chosen, override)
    folder = path.parent if is_config else Path()
    where = target if is_config else "data set"
    made: _Target = Structurer(registry, folder).structure({"dataset": chosen}, _Target, where)
    return made.dataset


def _dataset_of(path: Path) -> dict[str, Any]:
    values = yaml.read(path)
    if not isinstance(values, dict) or "dataset" not in values:
        raise ConfigError(f"{path}: dataset: missing; give a config that has one, or a data set's name")
    chosen = values["dataset"]
    if isinstance(chosen, str):
        return {"use": chosen}
    if not isinstance(chosen, dict):
        raise ConfigError(f"{path}: dataset: must be a name, or 'use: NAME' and its parameters")
    return dict(chosen)


def _override(chosen: dict[str, Any], override: str) -> None:
    """Apply one `dataset.size=64`, or `size=64` for short, in place."""
    field, equals, text = override.partition("=")
    name = field.strip().removeprefix("dataset.")
    if not equals or not name or "." in name:
        raise ConfigError(f"--set {override}: must set a field of the data set, such as dataset.size=64")
    chosen[name] = yaml.parse(text, f"--set {override}")
