"""DD-Ranking: scores of dataset distillation that separate images, labels and augmentation.

Names are loaded on first use, so that `import ddrank_core` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddrank_core.data.facts import DatasetFacts
    from ddrank_core.data.pictures import Decoded, Pictures
    from ddrank_core.errors import ConfigError, DataError, DDRankError
    from ddrank_core.events import (
        EpochFinished,
        Event,
        RunFailed,
        RunFinished,
        RunStarted,
        TrialFailed,
        TrialFinished,
        TrialStarted,
    )
    from ddrank_core.hookspecs import hookimpl
    from ddrank_core.image_cache import decoded
    from ddrank_core.protocols import (
        Architecture,
        Augmentation,
        Dataset,
        LabelMapping,
        Loss,
        Method,
        Sink,
        SinkWriter,
        Teachers,
    )
    from ddrank_core.spec import ComponentSpec, component, parameter
    from ddrank_core.types import (
        Augmented,
        DistilledSet,
        ImageSpace,
        Mixing,
        Randomness,
        RealData,
        Targets,
        View,
    )
    from ddrank_core.views import crop_and_resize

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Augmentation",
    "Augmented",
    "ComponentSpec",
    "ConfigError",
    "DDRankError",
    "DataError",
    "Dataset",
    "DatasetFacts",
    "Decoded",
    "DistilledSet",
    "EpochFinished",
    "Event",
    "ImageSpace",
    "LabelMapping",
    "Loss",
    "Method",
    "Mixing",
    "Pictures",
    "Randomness",
    "RealData",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "Sink",
    "SinkWriter",
    "Targets",
    "Teachers",
    "TrialFailed",
    "TrialFinished",
    "TrialStarted",
    "View",
    "__version__",
    "component",
    "crop_and_resize",
    "decoded",
    "hookimpl",
    "parameter",
]

_NAMES_IN = {
    "data.facts": ("DatasetFacts",),
    "data.pictures": ("Decoded", "Pictures"),
    "errors": ("ConfigError", "DataError", "DDRankError"),
    "events": (
        "EpochFinished",
        "Event",
        "RunFailed",
        "RunFinished",
        "RunStarted",
        "TrialFailed",
        "TrialFinished",
        "TrialStarted",
    ),
    "hookspecs": ("hookimpl",),
    "image_cache": ("decoded",),
    "protocols": (
        "Architecture",
        "Augmentation",
        "Dataset",
        "LabelMapping",
        "Loss",
        "Method",
        "Sink",
        "SinkWriter",
        "Teachers",
    ),
    "spec": ("ComponentSpec", "component", "parameter"),
    "types": (
        "Augmented",
        "DistilledSet",
        "ImageSpace",
        "Mixing",
        "Randomness",
        "RealData",
        "Targets",
        "View",
    ),
    "views": ("crop_and_resize",),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'ddrank_core' has no attribute {name!r}")
    return getattr(import_module(f"ddrank_core.{module}"), name)
