"""How many parameters a network has, without importing torch into this process.

A network is counted by building it, and that takes torch, which takes seconds to import. So another process
builds what has not been counted here before, and the number is kept in the cache, under all that a network
is made from: whoever ranks a second time waits for nothing, and no number is taken from a submission.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.errors import DataError, DDRankError, one_line
from ddrank_core.leaderboard.measured import typed
from ddrank_core.plugin_choice import Choice, asked, using
from ddrank_core.protocols import Architecture
from ddrank_core.registry import Entry, default_registry
from ddrank_core.store import cache_folder
from ddrank_core.structure import Chosen, Structurer

_LARGEST = 1 << 16
"""Of a network's parameters: none is so deep or wide, and counting weights must end."""
_LIMIT_SECONDS = 120.0
"""For building one network, and importing torch before the first."""
_NOT_COUNTED = "cannot be built to count its parameters"
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from ddrank_core.leaderboard.parameters import answer; answer()"
)


@attrs.frozen
class _Asked:
    """A network that a record names."""

    network: Chosen[Architecture]


def parameters(given: Mapping[str, Any], classes: int, shape: Sequence[int], where: str) -> int:
    """Return how many parameters a network has, for images [C, H, W] of so many classes.

    Raises:
        DataError: one line, if no plugin can build it.
    """
    if any(type(value) is int and abs(value) > _LARGEST for value in given.values()):
        raise DataError(f"{where}: a parameter is larger than {_LARGEST}, which no network's is")
    use = typed(given.get("use"), str, f"{where}: use")
    without_weights = {**given, **({"pretrained": False} if "pretrained" in given else {})}
    try:
        return _counted(use, json.dumps(without_weights), classes, tuple(shape))
    except DDRankError as error:
        raise DataError(f"{where}: {error}") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply") from error


@lru_cache(maxsize=256)
def _counted(use: str, network: str, classes: int, shape: tuple[int, ...]) -> int:
    file = _kept(default_registry().find("architecture", use), network, classes, shape)
    with suppress(OSError, ValueError):
        return int(file.read_text())
    question = json.dumps({"network": network, "classes": classes, "shape": shape})
    found = _built(question)
    if "error" in found:
        raise DataError(found["error"])
    count = int(found["count"])
    # Without it nothing is lost but time.
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(str(count))
        part.replace(file)
    return count


def _kept(entry: Entry, network: str, classes: int, shape: tuple[int, ...]) -> Path:
    """Return the file that keeps the number of parameters of a network."""
    whose = (entry.owner, entry.spec.target, _sources(entry.spec.target.partition(":")[0]))
    content = json.dumps([network, classes, shape, whose])
    return cache_folder() / "parameters" / hashlib.sha256(content.encode()).hexdigest()


def _sources(module: str) -> list[tuple[str, int, int]]:
    """Return name, size and time of the files that a module's package is made of, without importing them.

    Others import torch where they please, so that the class cannot be asked for its source here.
    """
    with suppress(ImportError, ValueError, OSError):
        spec = find_spec(module.partition(".")[0])
        if spec is not None:
            folders = map(Path, spec.submodule_search_locations or ())
            files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
            about = [(file, file.stat()) for file in files or map(Path, filter(None, [spec.origin]))]
            return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in about]
    return []


# -- the process that builds -------------------------------------------------------------------


def _built(question: str) -> dict[str, Any]:
    """Return what a process that has torch answers to a question.

    Raises:
        DataError: one line, if there is no answer.
    """
    said = f"{json.dumps(sys.path)}\n{json.dumps(_choice())}\n{question}\n"
    try:
        # A plugin's own output is of no use here, and would stand before the answer.
        done = subprocess.run(
            [sys.executable, "-c", _START], input=said, capture_output=True, text=True, timeout=_LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{_NOT_COUNTED}: it took longer than {_LIMIT_SECONDS:g} seconds") from error
    if not done.stdout:
        raise DataError(f"{_NOT_COUNTED}: its process ended")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _choice() -> dict[str, Any]:
    there = asked()
    files = [os.path.abspath(file) for file in there.files]
    return {"only": there.only, "without": there.without, "files": files}


def answer() -> None:
    """Answer a question, a line of JSON on standard input, on standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    there = json.loads(sys.stdin.readline())
    choice = Choice(tuple(there["only"]), tuple(there["without"]), tuple(map(Path, there["files"])))
    with using(choice), answers:
        answers.write(json.dumps(_answer(**json.loads(sys.stdin.readline()))))


def _answer(network: str, classes: int, shape: list[int]) -> dict[str, Any]:
    try:
        import torch

        values = {"network": json.loads(network)}
        made: _Asked = Structurer(default_registry(), Path()).structure(values, _Asked, "teacher")
        channels, height, width = shape
        # Shapes without values: nothing is drawn, and nothing large is held.
        with torch.device("meta"):
            built = made.network.component.build(classes, (channels, height, width))
        return {"count": sum(parameter.numel() for parameter in built.parameters())}
    except DDRankError as error:
        return {"error": str(error)}
    except Exception as error:  # a plugin's code, on values that a stranger chose
        return {"error": f"{_NOT_COUNTED}: {one_line(error)}"}
