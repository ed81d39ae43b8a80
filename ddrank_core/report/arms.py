"""The arms and scores in a reader's words and order, shared by the terminal and the pictures."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ddrank_core.engine import score
from ddrank_core.results import ArmResult

ARMS: Mapping[str, str] = {
    "full-hard": "all real images, hard labels",
    "syn-hard": "distilled images, hard labels",
    "syn-any": "distilled images, the method's recipe",
    "rdm-any": "random real images, the same recipe",
    "syn-aug": "distilled images, recipe with augmentation",
    "rdm-aug": "random real images, recipe with augmentation",
    "syn-naug": "distilled images, recipe without augmentation",
    "rdm-naug": "random real images, recipe without augmentation",
}
"""Every arm in reading order, and what it trains on."""


@attrs.frozen
class ScoreWords:
    """How a score is shown to a reader."""

    title: str
    better: str
    scale: float
    """What a fraction is multiplied with: 100 for points of accuracy."""
    decimals: int
    unit: str
    meaning: str

    def number(self, value: float) -> str:
        """Return a mean or a half-width in the score's unit, without naming the unit."""
        # Adding zero turns the -0.0 that rounding can leave into 0.0.
        return f"{round(value * self.scale, self.decimals) + 0.0:.{self.decimals}f}"


SCORES: Mapping[str, ScoreWords] = {
    "hlr": ScoreWords("HLR", "lower", 100, 2, "points", "accuracy lost against the full data, hard labels"),
    "ior": ScoreWords("IOR", "higher", 100, 2, "points", "accuracy gained over random real images"),
    "ior_hlr": ScoreWords("IOR/HLR", "higher", 1, 3, "", "points gained for each point lost"),
    "lrs": ScoreWords("LRS", "higher", 1, 4, "", "IOR and HLR in one, from 0 to 1"),
    "ars": ScoreWords("ARS", "higher", 1, 4, "", "gain over random images, from 0 to 1; 0.2689 is no gain"),
}
"""Every score in reading order. exp(0) - exp(-1) over exp(1) - exp(-1) is 0.2689: ARS at equal arms."""


def in_order(arms: Mapping[str, ArmResult]) -> tuple[ArmResult, ...]:
    """Return the arms in reading order, any that are not in `ARMS` last."""
    known = [arms[name] for name in ARMS if name in arms]
    return (*known, *(arm for name, arm in arms.items() if name not in ARMS))


def ci95(arm: ArmResult) -> float | None:
    """Return the half-width of the 95 % Student-t interval of an arm's mean; None below two repeats."""
    return score.ci95(arm.std, arm.n)


def undefined(arm: ArmResult) -> str:
    """Return, in a few words, why an arm has no accuracy."""
    return "undefined: every trial diverged" if arm.diverged else "undefined: no trial has an accuracy"
