"""Scores once more from a record's trials: what it states must follow from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import attrs

from ddrank_core.config import RunConfig, ScoreName, Weights
from ddrank_core.engine.plan import ARMS_OF, Plan
from ddrank_core.engine.score import score_all, summarise_arm
from ddrank_core.engine.seed import derive
from ddrank_core.errors import ConfigError, DataError, one_line
from ddrank_core.leaderboard.measured import MAX_REPEATS, take, typed
from ddrank_core.protocols import Selection
from ddrank_core.report.arms import ARMS
from ddrank_core.report.record import arm_record, score_record
from ddrank_core.results import ArmResult, TrialResult
from ddrank_core.structure import Chosen, Structurer

_TOLERANCE = 1e-9
"""Of a number that is computed again: sums and quantiles may differ in the last digits between machines."""


@attrs.frozen(kw_only=True)
class _Rules:
    """What of a run's config its scores hang on, its trials given."""

    protocol: Chosen[Selection]
    scores: tuple[ScoreName, ...]
    weights: Weights


def check_scores(record: Mapping[str, Any], config: RunConfig, plan: Plan, where: str) -> None:
    """Check that a record's arms and scores follow from its trials, and these from the plan.

    Which trials count is asked of the protocol again.

    Raises:
        DataError: one line that names the file and the field.
    """
    trials = _trials(record, where)
    _check_plan(trials, take(record, "arms", dict, where), plan, where)
    rules = _Rules(protocol=config.protocol, scores=config.scores, weights=config.weights)
    _check_stated(record, trials, rules, where)


def check_own_words(record: Mapping[str, Any], structurer: Structurer, where: str) -> None:
    """Check that a record's arms and scores follow from its trials by what its own config says.

    Only the protocol's plugin is imported, so that whoever ranks needs neither torch nor the real data.

    Raises:
        ConfigError: one line, if the config has no such protocol, scores or weights.
        DataError: one line that names the file and the field.
    """
    values = take(record, "config", dict, where)
    given = {name: values.get(name) for name in ("protocol", "scores", "weights")}
    try:
        rules = _rules(structurer, json.dumps(given))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    name, version = rules.protocol.use, rules.protocol.component.version
    said = [take(record, f"protocol.{field}", str, where) for field in ("name", "version")]
    if said != [name, version]:
        raise DataError(
            f"{where}: protocol: {' '.join(said)[:60]}, but its config's is here {name} {version}"
        )
    _check_stated(record, _trials(record, where), rules, where)


@lru_cache(maxsize=64)
def _rules(structurer: Structurer, text: str) -> _Rules:
    """Return the rules in JSON; the records of a board have few different ones."""
    rules: _Rules = structurer.structure(json.loads(text), _Rules, "config")
    return rules


def _check_stated(
    record: Mapping[str, Any], trials: Sequence[TrialResult], rules: _Rules, where: str
) -> None:
    scores, stated = take(record, "scores", dict, where), take(record, "arms", dict, where)
    needed = {arm for name in rules.scores for arm in ARMS_OF[name]}
    arms: dict[str, ArmResult] = {}
    for name in (name for name in ARMS if name in needed or name in stated):
        arms[name] = _arm(name, take(stated, name, dict, f"{where}: arms"), trials, record, rules, where)
        _compare(arm_record(arms[name]), stated[name], f"{where}: arms.{name}")
    # Of a config it reads what the rules hold.
    found = score_all(cast("RunConfig", rules), arms)
    for name in rules.scores:
        given = take(scores, name, dict, f"{where}: scores")
        _compare(score_record(found[name]), given, f"{where}: scores.{name}")
    if extra := sorted(set(scores) - set(rules.scores)):
        raise DataError(f"{where}: scores.{extra[0][:40]}: is not asked for by the recipe")


def _check_plan(trials: Sequence[TrialResult], stated: Mapping[str, Any], plan: Plan, where: str) -> None:
    """Check that the trials are those that were to be done: their arms, rates and seeds."""
    for arm in plan.arms:
        given = take(stated, arm.name, dict, f"{where}: arms").get("same_as")
        if given != arm.same_as:
            raise DataError(
                f"{where}: arms.{arm.name}.same_as: {str(given)[:40]}, but by the recipe it is {arm.same_as}"
            )
    random = {arm.name for arm in plan.trained if arm.training.source == "random"}
    tried: dict[str, set[float]] = {arm.name: set(arm.candidates) for arm in plan.trained}
    for index, trial in enumerate(trials):
        field = f"{where}: trials[{index}]"
        if trial.learning_rate not in tried.get(trial.arm, set()):
            raise DataError(f"{field}: the recipe trains no {trial.arm[:40]} at rate {trial.learning_rate:g}")
        if trial.seed != derive(plan.seed, "trial", trial.repeat):
            raise DataError(f"{field}.seed: {trial.seed}, which is not repeat {trial.repeat}'s")
        subset = derive(plan.subset_seed, "subset", trial.repeat) if trial.arm in random else None
        if trial.subset_seed != subset:
            raise DataError(f"{field}.subset_seed: {trial.subset_seed}, which is not repeat {trial.repeat}'s")
    for arm in plan.trained:
        wanted, mine = len(plan.expected_trials(arm)), [trial for trial in trials if trial.arm == arm.name]
        # An arm whose trials were given up stops there, and has no result.
        if len(mine) != wanted and all(trial.error is None for trial in mine):
            raise DataError(
                f"{where}: trials: {len(mine)} of {arm.name}, of which the recipe trains {wanted}"
            )


# -- trials ------------------------------------------------------------------------------------


def _trials(record: Mapping[str, Any], where: str) -> list[TrialResult]:
    tests = take(record, "data.dataset.test_images", int, where)
    items = take(record, "trials", list, where)
    trials = [_trial(item, f"{where}: trials[{index}]", tests) for index, item in enumerate(items)]
    seen: set[tuple[object, ...]] = set()
    for index, trial in enumerate(trials):
        key = (trial.arm, trial.phase, trial.repeat, trial.learning_rate)
        if key in seen:
            raise DataError(
                f"{where}: trials[{index}]: stands twice (the same arm, repeat and learning rate)"
            )
        seen.add(key)
    return trials


def _trial(item: Any, where: str, tests: int) -> TrialResult:
    fields = typed(item, dict, where)
    accuracy = _optional(fields, "accuracy", where)
    if accuracy is not None:
        right = accuracy * tests
        if not 0 <= accuracy <= 1 or abs(right - round(right)) > 1e-6:
            raise DataError(f"{where}: accuracy: {accuracy:g} is no share of {tests} test images")
    return TrialResult(
        arm=take(fields, "arm", str, where),
        phase=take(fields, "phase", str, where),
        repeat=take(fields, "repeat", int, where),
        learning_rate=take(fields, "learning_rate", float, where),
        seed=take(fields, "seed", int, where),
        subset_seed=None if fields.get("subset_seed") is None else take(fields, "subset_seed", int, where),
        validation_accuracy=_optional(fields, "validation_accuracy", where),
        accuracy=accuracy,
        epoch=take(fields, "epoch", int, where),
        diverged=fields.get("diverged") is True,
        seconds=0.0,
        error=None if fields.get("error") is None else take(fields, "error", str, where),
    )


def _optional(fields: Mapping[str, Any], name: str, where: str) -> float | None:
    return None if fields.get(name) is None else take(fields, name, float, where)


# -- arms --------------------------------------------------------------------------------------


def _arm(
    name: str,
    stated: Mapping[str, Any],
    trials: Sequence[TrialResult],
    record: Mapping[str, Any],
    rules: _Rules,
    where: str,
) -> ArmResult:
    """Return an arm as its trials give it, or the given accuracy of the full data."""
    repeats = take(record, "protocol.repeats", int, where)
    asked = rules.protocol.component.repeats
    if repeats != asked or not 1 <= repeats <= MAX_REPEATS:
        raise DataError(f"{where}: protocol.repeats: {repeats}, but the recipe asks for {asked}")
    full = take(record, "config.full_data", dict, where)
    if name == "full-hard" and full.get("accuracy") is not None:
        accuracy = take(full, "accuracy", float, f"{where}: config.full_data")
        source = take(full, "source", str, f"{where}: config.full_data")
        given = summarise_arm(name, (accuracy,) * repeats, (None,) * repeats, source=source)
        return attrs.evolve(given, std=None, n=1)
    same_as = None if stated.get("same_as") is None else take(stated, "same_as", str, f"{where}: arms.{name}")
    trained = same_as or name
    if trained.partition("-")[0] != name.partition("-")[0]:
        raise DataError(f"{where}: arms.{name}.same_as: {trained[:40]} is trained on other images")
    mine = [trial for trial in trials if trial.arm == trained]
    if not mine:
        raise DataError(f"{where}: arms.{name}: has no trials")
    failed = sum(trial.error is not None for trial in mine)
    chosen = () if failed else _chosen(mine, rules, f"{where}: arms.{name}")
    if chosen and [trial.repeat for trial in chosen] != list(range(repeats)):
        raise DataError(f"{where}: arms.{name}: its trials are not of {repeats} repeats")
    return summarise_arm(
        name,
        [trial.accuracy for trial in chosen] or [None] * repeats,
        [trial.learning_rate for trial in chosen] or [None] * repeats,
        failed=failed,
        same_as=same_as,
    )


def _chosen(trials: Sequence[TrialResult], rules: _Rules, where: str) -> tuple[TrialResult, ...]:
    """Return the trials that count, as the protocol selects them."""
    protocol = rules.protocol.component
    search = tuple(trial for trial in trials if trial.phase == "search")
    final = tuple(trial for trial in trials if trial.phase != "search")
    try:
        if not search:
            return tuple(protocol.select(final))
        rate = protocol.select(search)[0].learning_rate
    except (LookupError, ValueError, TypeError) as error:
        raise DataError(f"{where}: nothing can be chosen from its trials: {one_line(error)}") from error
    return tuple(sorted((t for t in final if t.learning_rate == rate), key=lambda trial: trial.repeat))


# -- comparing ---------------------------------------------------------------------------------


def _compare(found: Any, stated: Any, where: str) -> None:
    """Check that all that was found is what is stated.

    Raises:
        DataError: one line, for the first difference.
    """
    if isinstance(found, Mapping) and isinstance(stated, Mapping):
        for name, value in found.items():
            # The words of a reason may change with a version.
            if name != "reason":
                _compare(value, stated.get(name), f"{where}.{name}")
    elif isinstance(found, (list, tuple)) and isinstance(stated, list) and len(found) == len(stated):
        for index, (value, other) in enumerate(zip(found, stated, strict=True)):
            _compare(value, other, f"{where}[{index}]")
    elif not _equal(found, stated):
        raise DataError(f"{where}: states {str(stated)[:40]}, but its trials give {str(found)[:40]}")


def _equal(found: Any, stated: Any) -> bool:
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in (found, stated)
    )
    if numbers:
        return math.isclose(found, stated, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(found == stated)
