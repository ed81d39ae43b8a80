"""Accuracies to scores, exactly as defined; accuracies are fractions in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ddrank_core.config import RunConfig, ScoreName
from ddrank_core.engine.plan import ARMS_OF
from ddrank_core.results import ArmResult, ScoreResult

Accuracies = Mapping[str, float]
"""Arm -> its accuracy in one repeat."""


def hlr(accuracy: Accuracies) -> float:
    """Return acc(full-hard) - acc(syn-hard): what is lost against the full data; lower is better."""
    return accuracy["full-hard"] - accuracy["syn-hard"]


def ior(accuracy: Accuracies) -> float:
    """Return acc(syn-any) - acc(rdm-any): what is won over random real images; higher is better."""
    return accuracy["syn-any"] - accuracy["rdm-any"]


def label_robust_score(ior: float, hlr: float, weight: float) -> float:
    """Return LRS(w) = (e^a - e^-1) / (e - e^-1) with a = w IOR - (1 - w) HLR, in [0, 1].

    Source: Li et al. 2025, "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (arXiv
    2505.13300), with accuracies as fractions.
    """
    return _to_unit(weight * ior - (1 - weight) * hlr)


def augmentation_robust_score(augmented: float, plain: float, weight: float) -> float:
    """Return ARS(g) = (e^b - e^-1) / (e - e^-1) with b = g augmented + (1 - g) plain, in [0, 1].

    Both are accuracies of the distilled minus the random images, with and without augmentation.
    """
    return _to_unit(weight * augmented + (1 - weight) * plain)


def _to_unit(exponent: float) -> float:
    return (math.exp(exponent) - math.exp(-1)) / (math.e - math.exp(-1))


def score_all(config: RunConfig, arms: Mapping[str, ArmResult]) -> dict[str, ScoreResult]:
    """Return every asked score over the repeats; undefined ones say why."""
    return {name: _score(name, config, arms) for name in config.scores}


def _score(name: ScoreName, config: RunConfig, arms: Mapping[str, ArmResult]) -> ScoreResult:
    needed = [arms[arm] for arm in ARMS_OF[name]]
    if reason := _failures(needed) or _divergence(needed):
        return _undefined(name, reason)
    repeats = len(needed[-1].accuracies)
    paired = [
        {arm.name: value for arm in needed if (value := arm.accuracies[repeat]) is not None}
        for repeat in range(repeats)
    ]
    if name == "ior_hlr" and (reason := _no_ratio([hlr(accuracy) for accuracy in paired])):
        return _undefined(name, reason)
    return summarise(name, [_value(name, config, accuracy) for accuracy in paired])


def _value(name: ScoreName, config: RunConfig, accuracy: Accuracies) -> float:
    match name:
        case "hlr":
            return hlr(accuracy)
        case "ior":
            return ior(accuracy)
        case "ior_hlr":
            return ior(accuracy) / hlr(accuracy)
        case "lrs":
            return label_robust_score(ior(accuracy), hlr(accuracy), config.weights.lrs)
        case "ars":
            augmented = accuracy["syn-aug"] - accuracy["rdm-aug"]
            plain = accuracy["syn-naug"] - accuracy["rdm-naug"]
            return augmentation_robust_score(augmented, plain, config.weights.ars)


def _failures(arms: Sequence[ArmResult]) -> str | None:
    lost = [f"{arm.failed} of {arm.name}" for arm in arms if arm.failed]
    return f"trials failed: {', '.join(lost)}" if lost else None


def _divergence(arms: Sequence[ArmResult]) -> str | None:
    lost = [f"{arm.diverged} of {len(arm.accuracies)} of {arm.name}" for arm in arms if arm.diverged]
    return f"selected trials diverged: {', '.join(lost)}" if lost else None


def _no_ratio(values: Sequence[float]) -> str | None:
    below = sum(value <= 0 for value in values)
    if not below:
        return None
    return (
        f"HLR is zero or negative in {below} of {len(values)} repeats, where a ratio has no meaning as a rank"
    )


def _undefined(name: str, reason: str) -> ScoreResult:
    return ScoreResult(name=name, mean=None, std=None, ci95=None, n=0, reason=reason)


def summarise(name: str, values: Sequence[float]) -> ScoreResult:
    """Return mean, sample standard deviation (n - 1) and the half-width of the 95 % t interval."""
    mean, std = mean_and_std(values)
    return ScoreResult(
        name=name, mean=mean, std=std, ci95=ci95(std, len(values)), n=len(values), values=tuple(values)
    )


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def ci95(std: float | None, n: int) -> float | None:
    """Return the half-width of the 95 % Student-t interval of a mean, None for a single value."""
    if std is None:
        return None
    # scipy.stats takes half a second to import, for this one function.
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)


def summarise_arm(
    name: str,
    accuracies: Sequence[float | None],
    learning_rates: Sequence[float | None],
    same_as: str | None = None,
    source: str | None = None,
    failed: int = 0,
) -> ArmResult:
    """Return an arm's result; None stands for a trial that diverged, or for all where trials `failed`."""
    finite = [value for value in accuracies if value is not None]
    mean, std = mean_and_std(finite) if finite else (None, None)
    return ArmResult(
        name=name,
        accuracies=tuple(accuracies),
        learning_rates=tuple(learning_rates),
        mean=mean,
        std=std,
        n=len(finite),
        diverged=0 if failed else len(accuracies) - len(finite),
        failed=failed,
        same_as=same_as,
        source=source,
    )
