"""What a record of a submission was to do: config and plan, as the submission's own files give them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ddrank_core.config import RunConfig, run_from
from ddrank_core.engine.plan import Plan, make_plan, replays_views
from ddrank_core.errors import ConfigError
from ddrank_core.leaderboard.measured import take
from ddrank_core.leaderboard.submission import check_contained, inside, leaves
from ddrank_core.leaderboard.types import Axis, Submission
from ddrank_core.leaderboard.variants import changing, config_at
from ddrank_core.registry import Registry
from ddrank_core.structure import Structurer


@attrs.frozen(kw_only=True)
class Planned:
    """What a run was to do."""

    config: RunConfig
    plan: Plan


def planned(config: RunConfig, own_rate: float | None, registry: Registry) -> Planned:
    """Return what a run of a config does; `own_rate` is the learning rate that the distilled set brings."""
    structurer = Structurer(registry, Path())
    hard, cross_entropy = structurer.chosen("label-mapping", "hard"), structurer.chosen("loss", "ce")
    return Planned(config=config, plan=make_plan(config, own_rate, hard, cross_entropy))


def takes_controls(plan: Plan) -> bool:
    """Return whether controls can be trained by a plan: stored views are of the method's images alone."""
    return not any(replays_views(arm.training) for arm in plan.trained)


def variant_config(
    record: Mapping[str, Any],
    own: RunConfig,
    submission: Submission,
    axis: Axis,
    registry: Registry,
    where: str,
) -> RunConfig:
    """Return the method's own config with what a variant's record changes, which names no file elsewhere.

    Raises:
        DDRankError: one line that names the file and the field.
    """
    theirs = take(record, "config", dict, where)
    values = {**own.resolved(os.path.abspath), "scores": theirs.get("scores")}
    for field in changing(axis):
        _put(values, field, _placed(config_at(theirs, field), field, submission, f"{where}: config.{field}"))
    config = run_from(values, registry, submission.folder, f"{where}: config")
    check_contained(config, submission)
    return config


def _put(values: dict[str, Any], field: str, value: Any) -> None:
    outer, _, inner = field.partition(".")
    values[outer] = {**values[outer], inner: value} if inner else value


def _placed(value: Any, field: str, submission: Submission, where: str) -> Any:
    """Return a record's value, its files in the submission's folder."""
    # A path in a config may name environment variables, whose values would then stand in messages.
    if any(isinstance(text, str) and "${" in text for _, text in leaves(value)):
        raise ConfigError(f"{where}: holds '${{', which asks for an environment variable")
    if field == "distilled.views" and isinstance(value, str):
        return os.path.abspath(inside(value, submission.folder, where))
    if field == "teachers" and isinstance(value, list):
        return [_teacher(item, submission, where) for item in value]
    return value


def _teacher(item: Any, submission: Submission, where: str) -> Any:
    checkpoint = item.get("checkpoint") if isinstance(item, dict) else None
    if not isinstance(checkpoint, str):
        return item
    return {
        **item,
        "checkpoint": os.path.abspath(inside(checkpoint, submission.folder, f"{where}: checkpoint")),
    }
