"""The label mapping `acme/corrected`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ddrank_core import ConfigError, Targets, Teachers, View, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class CorrectedTeacher:
    """Ask the teachers about every augmented view, and put right what they get wrong.

    Where the class that they find most likely is not the image's own, the two classes exchange their
    probabilities. A mixed image's own class is that of its larger part.

    Source: Wen, Lai & Qian 2019, "Preparing Lessons: Improve Knowledge Distillation with Better Supervision",
    the probability shift.
    """

    gives_soft: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    temperature: float = parameter(
        "softens each teacher's answer before the mean is taken", default=1.0, above=0
    )

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the corrected soft labels [B, K], float32 probabilities, and the hard labels [B].

        Raises:
            ConfigError: if there is no teacher.
        """
        import torch

        answers = teachers(view.images)
        if not answers:
            raise ConfigError("teachers: the labels acme/corrected need at least one teacher")
        soft = (torch.stack(answers).float() / self.temperature).softmax(dim=2).mean(dim=0)
        return Targets(
            **_hard_part(view),
            soft=_corrected(soft, _own_class(view).unsqueeze(1)),
            soft_kind="probabilities",
            soft_temperature=self.temperature,
        )


def _corrected(soft: Tensor, own: Tensor) -> Tensor:
    """Return `soft` [B, K] with the probabilities of the likeliest class and of `own` [B, 1] exchanged."""
    likeliest = soft.argmax(dim=1, keepdim=True)
    exchanged = soft.scatter(1, likeliest, soft.gather(1, own))
    return exchanged.scatter(1, own, soft.gather(1, likeliest))


def _own_class(view: View) -> Tensor:
    """Return the class of each image's larger part: int64 [B]."""
    if view.mixing is None:
        return view.hard
    return view.hard.where(view.mixing.weight >= 0.5, view.hard[view.mixing.partner])


def _hard_part(view: View) -> dict[str, Any]:
    if view.mixing is None:
        return {"hard": view.hard}
    return {"hard": view.hard, "partner_hard": view.hard[view.mixing.partner], "weight": view.mixing.weight}
