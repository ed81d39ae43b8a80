"""A plugin whose manifest imports torch, and with it every command that looks at the plugin."""

import torch

from ddrank_core import ComponentSpec, component, hookimpl


@hookimpl
def ddrank_losses():
    return [ComponentSpec("heavy/loss", "broken_heavy:Loss", "A loss that brings torch along")]


@component
class Loss:
    """Train with the student's squared logits, which is as good as nothing."""

    def __call__(self, logits, targets):
        return torch.square(logits).mean()
