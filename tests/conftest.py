"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Small networks are no faster on several threads, and many times slower beside another busy process. It is
# read when torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where its library is installed, what logs to Weights & Biases keeps to this machine.
os.environ.setdefault("WANDB_MODE", "offline")

Install = Callable[..., str]


@pytest.fixture(autouse=True)
def may_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let later tests fork workers though this one compiles: torch had its threads before, here."""
    monkeypatch.setattr("ddrank_core.engine.execution._COMPILED_HERE", False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a distribution with one plugin, for the length of a test.

    `install("acme", source)` writes the module `acme` and an `acme-1.2.dist-info` with an entry
    point of the group ddrank.v1, as pip would, and returns the module's name.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def add(distribution: str, source: str, *, version: str = "1.2", value: str | None = None) -> str:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ddrank.v1]\nmain = {value or module}\n")
        importlib.invalidate_caches()
        return module

    yield add
    for module in set(sys.modules) - before:
        if str(site) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]
