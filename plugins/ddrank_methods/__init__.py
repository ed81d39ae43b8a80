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
            "herding",
            "ddrank_methods.herding:Herding",
            "Real training images whose mean feature follows their class's (Welling 2009)",
        ),
        ComponentSpec(
            "k-means",
            "ddrank_methods.k_means:KMeans",
            "The real training images nearest to the centres of each class's clusters, or the centres",
        ),
        ComponentSpec(
            "noise",
            "ddrank_methods.noise:Noise",
            "Gaussian noise with the data set's mean and spread: what a recipe does without images",
        ),
        ComponentSpec(
            "random",
            "ddrank_methods.random_selection:RandomSelection",
            "Real training images of each class, drawn at random: the baseline",
        ),
    ]
