"""Distillation methods that `ddrank distill` can run."""

from __future__ import annotations

from collections.abc import Sequence

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_methods() -> Sequence[ComponentSpec]:
    return [
        ComponentSpec(
            "distribution-matching",
            "ddrank_methods.distribution_matching:DistributionMatching",
            "Distribution matching in random networks (Zhao & Bilen 2023)",
        ),
        ComponentSpec(
            "random",
            "ddrank_methods.random_selection:RandomSelection",
            "Real training images of each class, drawn at random: the baseline",
        ),
    ]
