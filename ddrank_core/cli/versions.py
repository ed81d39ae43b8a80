"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

_NAMED = ("torch", "torchvision", "timm", "kornia", "numpy", "scikit-learn", "attrs", "cattrs", "pluggy")


def versions() -> dict[str, str]:
    """Return name -> version of Python, of this project and of the libraries that compute."""
    from ddrank_core import __version__

    found = {"python": platform.python_version(), "platform": platform.platform(), "ddrank": __version__}
    for name in _NAMED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
