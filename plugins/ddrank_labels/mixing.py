"""The hard labels of a view, with those of the partners where images were mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core import View


class HardPart(TypedDict, total=False):
    """The fields of `Targets` that every label mapping sets."""

    hard: Tensor
    partner_hard: Tensor
    weight: Tensor


def hard_part(view: View) -> HardPart:
    """Return `hard` [B], and `partner_hard` [B] and `weight` [B] where the view is mixed."""
    if view.mixing is None:
        return {"hard": view.hard}
    return {"hard": view.hard, "partner_hard": view.hard[view.mixing.partner], "weight": view.mixing.weight}
