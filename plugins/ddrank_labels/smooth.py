"""The label mapping `smooth`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ddrank_core import Targets, Teachers, View, component, parameter
from ddrank_labels.mixing import hard_part

if TYPE_CHECKING:
    from torch import Tensor


@component
class SmoothLabels:
    """Train every image towards its class label, with a share of it spread over all classes.

    The soft label is (1 - smoothing) on the image's class plus smoothing / K on each of the K classes, as
    probabilities; a mixed image gets both labels, by weight. With the loss `sce` at temperature 1 it is
    torch's cross-entropy with `label_smoothing`; with `ce` too, if that does not smooth again.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.
    """

    gives_soft: ClassVar[bool] = True

    smoothing: float = parameter(
        "the share of every label that is spread evenly over the classes", default=0.1, minimum=0, maximum=1
    )

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the smoothed labels [B, K], float32, and the hard labels [B] of the view."""
        soft = self._smoothed(view)
        partner_soft = None if view.mixing is None else soft[view.mixing.partner]
        return Targets(**hard_part(view), soft=soft, partner_soft=partner_soft, soft_kind="probabilities")

    def _smoothed(self, view: View) -> Tensor:
        import torch

        classes = torch.arange(view.num_classes, device=view.hard.device)
        one_hot = (view.hard.unsqueeze(1) == classes).float()
        return (1 - self.smoothing) * one_hot + self.smoothing / view.num_classes
