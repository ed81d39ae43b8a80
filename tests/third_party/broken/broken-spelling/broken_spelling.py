"""A plugin whose hook is misspelt."""

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_loses():
    return [ComponentSpec("spelling/loss", "broken_spelling:Loss", "A loss")]
