"""The label mapping `stored-views`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ddrank_core import ConfigError, Targets, Teachers, View, component, parameter
from ddrank_labels.combine import combined
from ddrank_labels.mixing import hard_part

if TYPE_CHECKING:
    from torch import Tensor


@component
class StoredViewLabels:
    """Replay the views that a method stored, each with the soft label that its teacher gave it.

    Crops, flips, mixing and the order of the images come from the file in `distilled.views`, not from the
    recipe's augmentation. Random real images get the same views, which the teachers label as they are shown.

    Source: Shen & Xing 2022 (FKD); SRe2L, CDA, G-VBSM and others publish their labels like this.
    """

    gives_soft: ClassVar[bool] = True
    replays_views: ClassVar[bool] = True

    combine: Literal["logits", "probabilities"] = parameter(
        "the mean of several teachers is taken over their logits, or over their softmax probabilities",
        default="logits",
    )

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the soft labels [B, K] of the view, mixed as it is mixed, and its hard labels [B].

        Raises:
            ConfigError: if there are neither stored labels nor teachers.
        """
        if view.soft is not None:
            return Targets(
                **hard_part(view),
                soft=view.soft,
                soft_kind=view.soft_kind,
                soft_temperature=view.soft_temperature,
            )
        answers = teachers(view.images)
        if not answers:
            raise ConfigError("teachers: the labels stored-views need a teacher for images without labels")
        soft: Tensor = combined(answers, self.combine)
        return Targets(**hard_part(view), soft=soft, soft_kind=self.combine)
