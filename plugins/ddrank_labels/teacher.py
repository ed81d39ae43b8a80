"""The label mapping `teacher`."""

from __future__ import annotations

from typing import ClassVar, Literal

from ddrank_core import ConfigError, Targets, Teachers, View, component, parameter
from ddrank_labels.combine import combined
from ddrank_labels.mixing import hard_part


@component
class TeacherLabels:
    """Ask one or several teachers about every augmented view.

    The teachers see the view as the student does, mixed where it is mixed, so their soft labels are
    not mixed again; the hard labels are.

    Source: Shen & Xing 2022 (FKD), the labels that SRe2L, RDED and EDC train with, here computed
    on the spot instead of read back from disk.
    """

    gives_soft: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    combine: Literal["logits", "probabilities"] = parameter(
        "the mean of several teachers is taken over their logits, or over their softmax probabilities",
        default="logits",
    )

    def __call__(self, view: View, teachers: Teachers) -> Targets:
        """Return the teachers' mean soft labels [B, K], float32, and the hard labels [B] of the view.

        Raises:
            ConfigError: if there is no teacher.
        """
        answers = teachers(view.images)
        if not answers:
            raise ConfigError("teachers: the labels teacher need at least one teacher, and there is none")
        return Targets(**hard_part(view), soft=combined(answers, self.combine), soft_kind=self.combine)
