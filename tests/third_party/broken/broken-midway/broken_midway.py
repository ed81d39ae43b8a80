"""A plugin whose components work when they are tried, and raise in the middle of a run."""

import itertools

from ddrank_core import ComponentSpec, component, hookimpl

_calls = itertools.count(1)


@hookimpl
def ddrank_losses():
    return [ComponentSpec("midway/loss", "broken_midway:Loss", "A loss that soon gives up")]


@hookimpl
def ddrank_architectures():
    return [ComponentSpec("midway/network", "broken_midway:Network", "A network that soon gives up")]


@component
class Loss:
    """Train with the student's squared logits for twenty steps."""

    def __call__(self, logits, targets):
        if next(_calls) > 20:
            raise ArithmeticError("the loss has lost count")
        return logits.square().mean()


@component
class Network:
    """Build a linear network that is trained for twenty steps."""

    def build(self, num_classes, image_shape):
        from torch import nn

        class Tired(nn.Linear):
            def forward(self, images):
                if self.training and next(_calls) > 20:
                    raise ArithmeticError("the network is tired")
                return super().forward(images.flatten(1))

        channels, height, width = image_shape
        return Tired(channels * height * width, num_classes)
