"""A plugin that needs a module that is not there.

Its components are listed in a loop: what they are, only an import tells.
"""

import a_backend_that_nobody_has

from ddrank_core import ComponentSpec, component, hookimpl


@component
class Loss:
    """Train with whatever the backend has."""

    def __call__(self, logits, targets):
        return a_backend_that_nobody_has.loss(logits, targets)


@hookimpl
def ddrank_losses():
    return [ComponentSpec(f"import/{name}", "broken_import:Loss", "A loss") for name in ("loss",)]
