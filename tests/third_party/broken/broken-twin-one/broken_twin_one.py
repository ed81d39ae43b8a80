"""A plugin that claims a name which another distribution claims too."""

from ddrank_core import ComponentSpec, component, hookimpl


@hookimpl
def ddrank_losses():
    return [ComponentSpec("twin/loss", "broken_twin_one:Loss", "A loss")]


@component
class Loss:
    """Train with the student's squared logits, which is as good as nothing."""

    def __call__(self, logits, targets):
        return logits.square().mean()
