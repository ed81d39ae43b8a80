"""The errors a user of the project can meet.

Every message is one line and says what is wrong, where (file and field), whose
it is (plugin and version, where one is involved) and what to do next.
"""

from __future__ import annotations


class DDRankError(Exception):
    """Root of all errors that the project raises on purpose."""

    exit_code = 2


class ConfigError(DDRankError):
    """A run config, or a `--set` override, that cannot be used."""


class PluginError(DDRankError):
    """A plugin that did not load, or a component that it claims and cannot give."""


class DataError(DDRankError):
    """A data set, distilled set or checkpoint that cannot be used."""


class DeviceError(DDRankError):
    """A device that was asked for and is not there."""


class RunFailed(DDRankError):
    """A run that started on good input and could not be brought to its end."""

    exit_code = 1


def nearest(word: str, choices: list[str]) -> str:
    """Return ' (did you mean ...?)' for the closest of `choices`, or an empty string.

    >>> nearest("moementum", ["momentum", "nesterov"])
    " (did you mean 'momentum'?)"
    """
    # difflib costs 10 ms to import and is only needed to word an error.
    from difflib import get_close_matches

    found = get_close_matches(word, choices, n=1, cutoff=0.6)
    return f" (did you mean '{found[0]}'?)" if found else ""


def one_line(error: BaseException) -> str:
    """Return the first line of the error's text, at most 300 characters, after its type unless it is ours."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, DDRankError) and first:
        return first[:300]
    return f"{type(error).__name__}: {first}"[:300] if first else type(error).__name__
