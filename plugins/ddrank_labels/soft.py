"""The label mapping `soft`."""

from __future__ import annotations

from typing import ClassVar

from ddrank_core import DataError, Targets, Teachers, View, component
from ddrank_labels.mixing import hard_part


@component
class SoftLabels:
    """Train every image towards the one soft label that is stored with it.

    The label belongs to the image as it was stored: all augmented views share it, and a mixed image
    gets both labels, by weight.
    """

    gives_soft: ClassVar[bool] = True
    needs_stored_soft: ClassVar[bool] = True

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the stored soft labels [B, K] and the hard labels [B] of the view.

        Raises:
            DataError: if the images come without soft labels.
        """
        if view.soft is None:
            raise DataError(
                "labels: soft: the images come without stored soft labels; use the labels hard or teacher, "
                "or a distilled set that brings soft labels"
            )
        partner_soft = None if view.mixing is None else view.soft[view.mixing.partner]
        return Targets(
            **hard_part(view),
            soft=view.soft,
            partner_soft=partner_soft,
            soft_kind=view.soft_kind,
            soft_temperature=view.soft_temperature,
        )
