"""The project's own networks."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_architectures() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "convnet",
            "ddrank_networks.convnet:ConvNet",
            "The ConvNet that dataset distillation is compared with (Gidaris & Komodakis 2018)",
        )
    ]
