"""The `Config` of ddranking, which its evaluators take: a mapping, read from YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddrank_core.errors import ConfigError, one_line

MAX_BYTES = 1 << 20


def read_old(path: Path) -> dict[str, Any]:
    """Return the keys and values of a ddranking config, `.yaml`, `.yml` or `.json`.

    Read as ddranking reads it: of a key that stands twice, the last counts, and 1e-3 is text.

    Raises:
        ConfigError: one line that names the file.
    """
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(f"{path}: must be a .yaml, .yml or .json file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no config is")
        # A tree of aliases could be written out without end; ddranking's configs have none.
        if path.suffix != ".json" and any(isinstance(t, yaml.AliasToken) for t in yaml.scan(raw)):
            raise ConfigError(f"{path}: aliases (*name) are not allowed")
        values = json.loads(raw) if path.suffix == ".json" else yaml.safe_load(raw)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of ddranking's keys")
    return values


class Config:
    """What a ddranking config says.

    Example:
        config = Config.from_file("configs/Demo_LRS_Soft_Label.yaml")
        config.update({"num_eval": 1})
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = dict(config or {})

    @classmethod
    def from_file(cls, filepath: str | Path) -> Config:
        """Read a YAML or JSON file.

        Raises:
            ConfigError: one line that names the file.
        """
        return cls(read_old(Path(filepath)))

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value; `im_size` as a tuple."""
        value = self.config.get(key, default)
        return tuple(value) if key == "im_size" and isinstance(value, list) else value

    def update(self, overrides: Mapping[str, Any]) -> None:
        """Set some of the values."""
        self.config.update(overrides)

    def __repr__(self) -> str:
        return f"Config({self.config})"
