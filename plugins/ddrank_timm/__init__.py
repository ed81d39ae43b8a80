"""Every network of timm (pytorch-image-models), as `timm/NAME`."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_architectures() -> list[ComponentSpec]:
    return [
        ComponentSpec("timm/*", "ddrank_timm.family:TimmFamily", "Any network of timm, such as timm/resnet18")
    ]
