"""The tracks: a method's own recipe, and one fixed recipe for all methods on a data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ddrank_core.config import RunConfig, load_run
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.submission import check_contained
from ddrank_core.leaderboard.types import Submission, Track
from ddrank_core.registry import Registry
from ddrank_core.structure import plain

FOLDER = Path(__file__).parent / "tracks"
"""Holds the fixed recipes: a run config for each data set, without the distilled set."""


def fixed_datasets() -> list[str]:
    """Return the data sets that have a fixed recipe."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config_of(submission: Submission, track: Track, registry: Registry) -> RunConfig:
    """Return what evaluates the submission's distilled set on a track.

    Raises:
        ConfigError: one line that names the file and the field.
        PluginError: if a component's plugin is broken.
    """
    own = _checked(load_run(submission.recipe, registry), submission)
    return own if track == "own" else _fixed(own, submission, registry)


def _checked(config: RunConfig, submission: Submission) -> RunConfig:
    where = submission.recipe
    check_contained(config, submission)
    if config.students:
        raise ConfigError(f"{where}: students: a submission is evaluated with one; give student")
    if config.dataset.use != submission.dataset:
        raise ConfigError(
            f"{where}: dataset: {config.dataset.use}, but {submission.folder.name} is of {submission.dataset}"
        )
    return config


def _fixed(own: RunConfig, submission: Submission, registry: Registry) -> RunConfig:
    """Return the data set's fixed recipe, on the submission's distilled set and copy of the real data."""
    path = FOLDER / f"{own.dataset.use}.yaml"
    if own.dataset.use not in fixed_datasets():
        known = ", ".join(fixed_datasets())
        raise ConfigError(
            f"{submission.recipe}: dataset: there is no fixed recipe for {own.dataset.use} (there is one for "
            f"{known}); evaluate it with --track own"
        )
    # JSON is YAML, and an absolute path means the same in any folder.
    dataset = json.dumps(plain(own.dataset, os.path.abspath))
    distilled = json.dumps({"path": os.path.abspath(own.distilled.path), "ipc": submission.ipc})
    overrides = [f"dataset={dataset}", f"distilled={distilled}"]
    if own.whitening is not None and distilled_file.header(own.distilled.path).space.kind == "zca":
        # Images in ZCA space mean nothing without the whitening that they were made under.
        overrides.append(f"whitening={json.dumps(plain(own.whitening))}")
    return load_run(path, registry, overrides)
