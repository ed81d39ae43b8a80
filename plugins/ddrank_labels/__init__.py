"""The project's own label mappings: what each image is trained towards."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_label_mappings() -> list[ComponentSpec]:
    return [
        ComponentSpec("hard", "ddrank_labels.hard:HardLabels", "The class label of each image"),
        ComponentSpec(
            "smooth", "ddrank_labels.smooth:SmoothLabels", "The class label, partly spread over all classes"
        ),
        ComponentSpec("soft", "ddrank_labels.soft:SoftLabels", "One stored soft label per image"),
        ComponentSpec(
            "teacher", "ddrank_labels.teacher:TeacherLabels", "Teachers label every augmented view"
        ),
        ComponentSpec(
            "stored-views",
            "ddrank_labels.stored_views:StoredViewLabels",
            "Stored views, each with its own soft label (FKD), replayed",
        ),
    ]
