"""A plugin that takes ten seconds to import."""

import time

from ddrank_core import ComponentSpec, component, hookimpl

time.sleep(10)


@hookimpl
def ddrank_losses():
    return [ComponentSpec("slow/loss", "broken_slow:Loss", "A loss that is worth the wait")]


@component
class Loss:
    """Train with the student's squared logits, which is as good as nothing."""

    def __call__(self, logits, targets):
        return logits.square().mean()
