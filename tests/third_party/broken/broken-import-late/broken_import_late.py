"""A plugin that needs a module that is not there. What it brings can be read without an import."""

import a_backend_that_nobody_has

from ddrank_core import ComponentSpec, component, hookimpl


@hookimpl
def ddrank_losses():
    return [ComponentSpec("import-late/loss", "broken_import_late:Loss", "A loss")]


@component
class Loss:
    """Train with whatever the backend has."""

    def __call__(self, logits, targets):
        return a_backend_that_nobody_has.loss(logits, targets)
