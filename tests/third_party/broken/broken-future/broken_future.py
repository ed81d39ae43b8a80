"""A plugin for a version of the plugin API that is yet to come."""

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_losses():
    return [ComponentSpec("future/loss", "broken_future:Loss", "A loss")]
