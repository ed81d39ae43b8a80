"""Safe YAML: no tags, no aliases, no duplicate keys, limits of size, and 1e-3 is a number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ddrank_core.errors import ConfigError, one_line

MAX_BYTES = 1 << 20
_MAX_WHOLE, _MAX_NUMBER = 30, 100
"""Characters of a whole number, and of any: Python takes minutes over longer ones, or cannot print them."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses tags, aliases (they can explode) and keys that are no text or stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _fault(f"aliases (*{event.anchor}) are not allowed", event)
        if getattr(event, "tag", None) not in (None, "!"):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _fault(f"tags ({tag}) are not allowed", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            # YAML 1.1 reads the keys on, yes, 1 and << as something other than text.
            if key.tag != "tag:yaml.org,2002:str":
                hint = f"; '{key.value}' needs quotes" if isinstance(key, yaml.ScalarNode) else ""
                raise _fault(f"a key must be text{hint}", key)
            if key.value in seen:
                raise _fault(f"'{key.value}' stands twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: Any) -> int:
        if len(node.value) > _MAX_WHOLE:
            raise _fault(f"a whole number of {len(node.value)} characters is too large", node)
        value: int = self.construct_yaml_int(node)
        if abs(value) > 1 << 63:
            raise _fault(f"{node.value} is too large for a whole number (at most 2^63)", node)
        return value

    def construct_number(self, node: Any) -> float:
        if len(node.value) > _MAX_NUMBER:
            raise _fault(f"a number of {len(node.value)} characters is too long", node)
        value: float = self.construct_yaml_float(node)
        return value


def _fault(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)

# YAML 1.1, which PyYAML keeps to, reads 1e-3 as text; every author of a config means a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse(text: str, where: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        ConfigError: one line with `where`, the line number and what is wrong.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}{line}: {problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read as YAML: {one_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: nested too deeply") from error


def read(path: Path) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        ConfigError: if the file is missing, too large, not text or not YAML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no config is")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file (UTF-8)") from error
    return parse(text, str(path))
