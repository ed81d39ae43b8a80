"""Libraries that some sinks need and ddrank does not bring."""

from __future__ import annotations

from importlib.util import find_spec

from ddrank_core import ConfigError


def check_installed(library: str) -> None:
    """Refuse a library that is not there, without importing it.

    Raises:
        ConfigError: one line that says how to install it.
    """
    if find_spec(library) is None:
        raise ConfigError(f"{library} is not installed; run: pip install 'ddrank[{library}]'")
