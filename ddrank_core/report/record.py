"""The record: everything about a run that a reader, a rerun or a leaderboard needs, as strict JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from ddrank_core.config import Precision, RunConfig
from ddrank_core.provenance import components, provenance
from ddrank_core.results import ArmResult, ScoreResult, TrialResult

SCHEMA_VERSION = 1

TRIAL_FIELDS = (
    "arm",
    "phase",
    "repeat",
    "learning_rate",
    "seed",
    "subset_seed",
    "accuracy",
    "validation_accuracy",
    "epoch",
    "diverged",
    "seconds",
    "reused",
    "how",
    "error",
)
"""What the record and `trials.csv` say of each trial, in this order."""


@attrs.frozen(kw_only=True)
class RunReport:
    """A finished run, as the engine hands it to everything that shows or stores it."""

    config: RunConfig
    device: str
    precision: Precision
    scores: Mapping[str, ScoreResult]
    """Holds at least the scores that the config asks for."""
    arms: Mapping[str, ArmResult]
    trials: tuple[TrialResult, ...]
    protocol: Mapping[str, Any]
    """`name`, `version`, `repeats`, `learning_rates`, and whatever else the protocol decided."""
    components: list[Mapping[str, Any]]
    """As `components_of` returns them."""
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    """Digests and sources of the real data and the distilled set."""
    teachers: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know to judge the scores, one sentence each."""
    started: str
    """ISO 8601, UTC."""
    seconds: float


def build_record(report: RunReport) -> dict[str, Any]:
    """Return the record as JSON values: no NaN, no infinity, text keys.

    A number of a result that is not finite becomes null. In the config and in component
    parameters, where infinity can be meant, it becomes the text `inf`, `-inf` or `nan`.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": report.config.name,
        "scores": {name: score_record(report.scores[name]) for name in report.config.scores},
        "arms": {name: arm_record(arm) for name, arm in report.arms.items()},
        "trials": [_trial(trial) for trial in report.trials],
        "config": report.config.resolved(),
        "protocol": report.protocol,
        "components": report.components,
        "versions": report.versions,
        "data": report.data,
        "teachers": report.teachers,
        "device": report.device,
        "precision": report.precision,
        "notes": report.notes,
        "started": report.started,
        "seconds": _finite(report.seconds),
    }
    strict: dict[str, Any] = strict_json(record)
    return strict


def components_of(config: RunConfig) -> list[Mapping[str, Any]]:
    """Return where each component of the config is from, in the config's order.

    Each has its `field` in the config, `kind`, `name`, `distribution`, `version`, `from_file`, `target`,
    `source_digest` (SHA-256 of the sources of its class, None where there are none to read), `parameters`
    (all) and `given` (those that the config names).
    """
    return [{"field": field, **provenance(chosen)} for field, chosen in components(config)]


def score_record(score: ScoreResult) -> dict[str, Any]:
    """Return a score as JSON values."""
    return {
        "mean": _finite(score.mean),
        "std": _finite(score.std),
        "ci95": _finite(score.ci95),
        "n": score.n,
        "values": [_finite(value) for value in score.values],
        "reason": score.reason,
    }


def arm_record(arm: ArmResult) -> dict[str, Any]:
    """Return an arm as JSON values."""
    return {
        "accuracy": {
            "mean": _finite(arm.mean),
            "std": _finite(arm.std),
            "n": arm.n,
            "values": [_finite(value) for value in arm.accuracies],
        },
        "learning_rates": [_finite(rate) for rate in arm.learning_rates],
        "diverged": arm.diverged,
        "failed": arm.failed,
        "same_as": arm.same_as,
        "source": arm.source,
    }


def _trial(trial: TrialResult) -> dict[str, Any]:
    values = {name: getattr(trial, name) for name in TRIAL_FIELDS}
    return {name: _finite(value) if isinstance(value, float) else value for name, value in values.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def strict_json(value: Any) -> Any:
    """Return `value` as what JSON can hold; an object that it cannot hold becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float):
        # numpy's float64 is a float too; float() makes it a plain one.
        return float(value) if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
