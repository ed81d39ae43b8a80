"""The tracks: a method's own recipe, and one fixed recipe for all methods on a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ddrank_core.config import RunConfig, load_run
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.submission import check_contained, how_to_get
from ddrank_core.leaderboard.types import Submission, Track
from ddrank_core.registry import Registry
from ddrank_core.structure import plain

FOLDER = Path(__file__).parent / "tracks"
"""Holds the fixed recipes: a run config for each data set, without the distilled set."""
SEED = 0
"""Of every evaluation."""
NAMELESS = ("arrays", "image-folder")
"""Data sets that hold whatever lies in a file or a folder: a submission says what that is called."""


def fixed_datasets() -> list[str]:
    """Return the data sets that have a fixed recipe."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config_of(
    submission: Submission, track: Track, registry: Registry, overrides: Sequence[str] = ()
) -> RunConfig:
    """Return what evaluates the submission's distilled set on a track; `overrides` are of its own recipe.

    Raises:
        ConfigError: one line that names the file and the field.
        PluginError: if a component's plugin is broken.
    """
    own = _checked(_loaded(submission, registry, overrides), submission)
    return own if track == "own" else _fixed(own, submission, registry)


def _loaded(submission: Submission, registry: Registry, overrides: Sequence[str]) -> RunConfig:
    try:
        return load_run(submission.recipe, registry, overrides)
    except ConfigError as error:
        where = f"{submission.recipe}: distilled.path"
        if submission.distilled.url is None or not str(error).startswith(f"{where}: no such file"):
            raise
        raise ConfigError(f"{where}: {how_to_get(submission)}") from error
    except OSError as error:  # a stranger's path can be longer than any file's
        raise ConfigError(f"{submission.recipe}: names a file that cannot be: {error.strerror}") from error


def _checked(config: RunConfig, submission: Submission) -> RunConfig:
    where = submission.recipe
    check_contained(config, submission)
    if config.students:
        raise ConfigError(f"{where}: students: a submission is evaluated with one; give student")
    check_dataset(config.dataset.use, submission.dataset, f"{where}: dataset")
    if config.seed != SEED or config.subset_seed not in (None, SEED):
        # A seed is luck that can be chosen, and repeats of two methods are paired by it.
        raise ConfigError(f"{where}: seed, subset_seed: a submission is evaluated with {SEED}, as all others")
    return config


def check_dataset(use: str, name: str, where: str) -> None:
    """Check that a submission's data set is called as it may be.

    One's own arrays and pictures, and data sets of other packages, go by any name that is not another's.

    Raises:
        ConfigError: one line.
    """
    has_name = use not in NAMELESS and "/" not in use
    if use != name and (has_name or name in (*fixed_datasets(), *NAMELESS, "imagenet")):
        raise ConfigError(f"{where}: {use}, but the submission is of {name}")


def _fixed(own: RunConfig, submission: Submission, registry: Registry) -> RunConfig:
    """Return the data set's fixed recipe, on the submission's distilled set and copy of the real data."""
    path = FOLDER / f"{own.dataset.use}.yaml"
    if own.dataset.use not in fixed_datasets():
        known = ", ".join(fixed_datasets())
        raise ConfigError(
            f"{submission.recipe}: dataset: there is no fixed recipe for {submission.dataset} (there is one "
            f"for {known}); evaluate it with --track own"
        )
    # JSON is YAML, and an absolute path means the same in any folder.
    dataset = json.dumps(plain(own.dataset, os.path.abspath))
    distilled = json.dumps({"path": os.path.abspath(own.distilled.path), "ipc": submission.ipc})
    overrides = [f"dataset={dataset}", f"distilled={distilled}"]
    if own.whitening is not None and distilled_file.header(own.distilled.path).space.kind == "zca":
        # Images in ZCA space mean nothing without the whitening that they were made under.
        overrides.append(f"whitening={json.dumps(plain(own.whitening))}")
    return load_run(path, registry, overrides)
