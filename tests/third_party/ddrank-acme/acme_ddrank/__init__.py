"""The manifest: what this package brings, and where it lives. Nothing heavy is imported."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_losses() -> list[ComponentSpec]:
    return [ComponentSpec("acme/focal", "acme_ddrank.focal:FocalLoss", "Focal loss (Lin et al. 2017)")]


@hookimpl
def ddrank_label_mappings() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "acme/corrected",
            "acme_ddrank.corrected:CorrectedTeacher",
            "Teachers label every view, and are put right where they are wrong (Wen et al. 2019)",
        )
    ]


@hookimpl
def ddrank_augmentations() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "acme/cutout",
            "acme_ddrank.cutout:Cutout",
            "An empty square in every image (DeVries & Taylor 2017)",
        )
    ]


@hookimpl
def ddrank_architectures() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "acme/convmixer", "acme_ddrank.convmixer:ConvMixer", "ConvMixer (Trockman & Kolter 2022)"
        )
    ]
