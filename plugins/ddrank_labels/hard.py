"""The label mapping `hard`."""

from __future__ import annotations

from ddrank_core import Targets, Teachers, View, component
from ddrank_labels.mixing import hard_part


@component
class HardLabels:
    """Train every image towards its class label; a mixed image towards both, by weight."""

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the hard labels [B] of the view; neither stored soft labels nor teachers are used."""
        return Targets(**hard_part(view))
