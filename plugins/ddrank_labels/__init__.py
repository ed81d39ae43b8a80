"""The project's own label mappings: what each image is trained towards."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_label_mappings() -> list[ComponentSpec]:
    return [
        ComponentSpec("hard", "ddrank_labels.hard:HardLabels", "The class label of each image"),
        ComponentSpec("soft", "ddrank_labels.soft:SoftLabels", "One stored soft label per image"),
        ComponentSpec(
            "teacher", "ddrank_labels.teacher:TeacherLabels", "Teachers label every augmented view"
        ),
    ]
