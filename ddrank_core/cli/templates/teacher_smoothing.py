"""Label smoothing towards what a teacher says."""

from __future__ import annotations

from typing import ClassVar

from ddrank_core import ConfigError, Targets, Teachers, View, component, parameter


@component
class TeacherSmoothing:
    """Train every image towards its class label, a share of which is replaced by the teachers' answer.

    The soft label is (1 - share) * label + share * softmax(teacher / temperature), the mean over several
    teachers. They see the image as the student does, mixed where it is mixed; the class label is mixed here.

    Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020,
    section 3.
    """

    gives_soft: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    share: float = parameter("the teachers' share of every label", default=0.5, minimum=0, maximum=1)
    temperature: float = parameter("softens the teachers' answers", default=1.0, above=0)

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the smoothed labels [B, K], as probabilities, and the hard labels [B].

        Raises:
            ConfigError: if there is no teacher.
        """
        import torch

        answers = teachers(view.images)
        if not answers:
            raise ConfigError("teachers: there is none, and these labels need at least one")
        taught = (torch.stack(answers) / self.temperature).softmax(dim=2).mean(dim=0)
        classes = torch.arange(taught.shape[1], device=taught.device)
        label = (view.hard.unsqueeze(1) == classes).to(taught.dtype)
        mixing = view.mixing
        if mixing is not None:
            weight = mixing.weight.unsqueeze(1)
            label = weight * label + (1 - weight) * label[mixing.partner]
        return Targets(
            hard=view.hard,
            partner_hard=None if mixing is None else view.hard[mixing.partner],
            weight=None if mixing is None else mixing.weight,
            soft=(1 - self.share) * label + self.share * taught,
            soft_kind="probabilities",
        )
