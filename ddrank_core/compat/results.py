"""What ddranking's evaluators return and write: means, standard deviations and a CSV."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddrank_core.engine.score import mean_and_std
from ddrank_core.errors import DataError

if TYPE_CHECKING:
    from ddrank_core.engine.run import Outcome
    from ddrank_core.results import ScoreResult

Columns = Mapping[str, Sequence[float]]
"""Name -> one value per repeat, as a CSV has them."""


def score_values(outcome: Outcome, name: str, factor: float = 1.0) -> tuple[float, ...]:
    """Return a score by repeat, times `factor`; where it is undefined, not-a-number and a warning."""
    score: ScoreResult = outcome.scores[name]
    if score.mean is None:
        warnings.warn(f"{name} is undefined: {score.reason}", stacklevel=5)
        return (math.nan,) * repeats(outcome)
    return tuple(factor * value for value in score.values)


def differences(outcome: Outcome, first: str, second: str) -> tuple[float, ...]:
    """Return by repeat, in percentage points, how much better one arm is than another."""
    pairs = zip(percent(outcome, first), percent(outcome, second), strict=True)
    return tuple(one - other for one, other in pairs)


def percent(outcome: Outcome, arm: str) -> tuple[float, ...]:
    """Return an arm's test accuracies by repeat, in percent; not-a-number where a trial diverged."""
    return tuple(math.nan if value is None else 100 * value for value in outcome.arms[arm].accuracies)


def repeats(outcome: Outcome) -> int:
    """Return how many repeats there were."""
    return max(len(arm.accuracies) for arm in outcome.arms.values())


def summary(columns: Columns, keys: Mapping[str, str]) -> dict[str, float]:
    """Return the columns' means and sample standard deviations; that of a single value is not-a-number."""
    result = {}
    for column, key in keys.items():
        mean, std = mean_and_std(columns[column])
        result[f"{key}_mean"], result[f"{key}_std"] = mean, math.nan if std is None else std
    return result


def write_csv(columns: Columns, path: Path) -> None:
    """Write one row per repeat; folders are made.

    Raises:
        DataError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    except OSError as error:
        raise DataError(f"save_path: {path}: cannot be written: {error.strerror}") from error


def show(result: Mapping[str, float], title: str) -> None:
    """Print what was found, one line for each quantity."""
    print(f"{title}:")
    for key, mean in result.items():
        if key.endswith("_mean"):
            name = key.removesuffix("_mean")
            print(f"  {name.replace('_', ' ')}: {mean:.4g} (std {result[f'{name}_std']:.4g})")
