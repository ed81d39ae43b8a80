"""A plugin whose hook asks for an argument that no hook is given."""

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_losses(config):
    return [ComponentSpec("signature/loss", "broken_signature:Loss", "A loss")]
