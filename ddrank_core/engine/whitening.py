"""ZCA whitening, fitted on the real training set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ddrank_core.errors import DataError, RunFailed, one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_VALUES = 3 * 64 * 64
"""Values per image: the covariance has their square (1.2 GB at this size), and its eigenvectors take their
cube (minutes at this size; seconds at 3 x 32 x 32). A whitening is fitted once and kept."""

_CHUNK = 4096


@attrs.frozen(eq=False)
class Whitener:
    """Between [0, 1] and whitened space, both [B, C, H, W] float32 on one device.

    With the training images' mean m and covariance U diag(s) U^T (over n - 1), an image x becomes
    (x - m) U diag(1 / sqrt(s + eps)) U^T: the direction of every pixel is kept, and pixels decorrelate.

    Source: Krizhevsky 2009, appendix A; kornia.enhance.zca, which MTT (GeorgeCazenavette/mtt-distillation,
    utils.py) fits with eps 0.1 on images in [0, 1] that are not normalised.
    """

    mean: Tensor
    """float32 [1, C * H * W]."""
    matrix: Tensor
    """float32 [C * H * W, C * H * W], symmetric."""
    inverse: Tensor

    def normalise(self, unit: Tensor) -> Tensor:
        """Return whitened images."""
        return ((unit.flatten(1) - self.mean) @ self.matrix).view(unit.shape)

    def to_unit(self, normalised: Tensor) -> Tensor:
        """Return images in [0, 1] units, not clipped."""
        return (normalised.flatten(1) @ self.inverse + self.mean).view(normalised.shape)

    def to(self, device: torch.device) -> Whitener:
        """Return the same whitening on `device`."""
        return Whitener(self.mean.to(device), self.matrix.to(device), self.inverse.to(device))


def fit(images: Tensor, eps: float, where: str) -> Whitener:
    """Return the whitening of training images, uint8 or float32 in [0, 1] [N, C, H, W], on the CPU.

    Computed in float64, a chunk of the images at a time.

    Raises:
        DataError: if the images are too large.
    """
    import torch

    values = images[0].numel()
    if values > MAX_VALUES:
        raise DataError(
            f"{where}: whitening: images of {values} values are too large for it (at most {MAX_VALUES})"
        )
    scale = 1.0 if images.is_floating_point() else 255.0
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    total = torch.zeros(values, dtype=torch.float64)
    for chunk in chunks:
        total += chunk.flatten(1).double().sum(dim=0)
    mean = total / len(images)
    covariance = torch.zeros(values, values, dtype=torch.float64)
    for chunk in chunks:
        centred = chunk.flatten(1).double() - mean
        covariance += centred.T @ centred
    covariance /= max(1, len(images) - 1) * scale**2
    strength, basis = torch.linalg.eigh(covariance)
    # Rounding leaves eigenvalues a little below zero where pixels do not vary.
    spread = (strength.clamp(min=0) + eps).sqrt()
    return Whitener(
        (mean / scale).unsqueeze(0).float(),
        ((basis / spread) @ basis.T).float(),
        ((basis * spread) @ basis.T).float(),
    )


def cached(path: Path, make: Callable[[], Whitener]) -> Whitener:
    """Return the whitening that `path` keeps, or make it and keep it; a damaged file is replaced.

    Raises:
        RunFailed: if it cannot be written.
    """
    from safetensors.torch import load_file, save

    names = [field.name for field in attrs.fields(Whitener)]
    try:
        kept = load_file(path)
        return Whitener(*(kept[name] for name in names))
    except Exception:  # none there, or whatever a damaged file makes the reader raise
        whitener = make()
    tensors = {name: getattr(whitener, name).contiguous() for name in names}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.write_bytes(save(tensors))
            os.replace(whole, path)
    except OSError as error:
        raise RunFailed(f"{path}: the whitening cannot be kept: {one_line(error)}") from error
    return whitener
