"""A plugin whose components are not where its manifest says."""

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_losses():
    return [
        ComponentSpec("target/module", "broken_target_losses:Loss", "A loss in a module that is not there"),
        ComponentSpec("target/class", "broken_target:Los", "A loss in a class that is not there"),
    ]
