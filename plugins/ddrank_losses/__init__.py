"""The project's own losses."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_losses() -> list[ComponentSpec]:
    return [
        ComponentSpec("ce", "ddrank_losses.ce:CrossEntropy", "Cross-entropy with hard or soft labels"),
        ComponentSpec("sce", "ddrank_losses.sce:SoftCrossEntropy", "Cross-entropy with softened soft labels"),
        ComponentSpec("kl", "ddrank_losses.kl:KLDivergence", "KL divergence from softened soft labels"),
        ComponentSpec("mse", "ddrank_losses.mse:MSE", "Squared error to the soft labels' logits"),
        ComponentSpec(
            "mse_gt",
            "ddrank_losses.mse_gt:MSEGroundTruth",
            "Squared error to the soft labels' logits, plus cross-entropy with the hard labels",
        ),
    ]
