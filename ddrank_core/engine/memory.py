"""What training takes of a device's memory, as far as it can be reckoned beforehand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from ddrank_core.engine.prepared import Prepared
from ddrank_core.engine.train import build

if TYPE_CHECKING:
    import torch

_COHORT_SHARE = 0.6
"""The share of a GPU's free memory that a cohort may take."""
_BYTES_PER_WEIGHT = 4 * 4
"""A weight, its gradient, and up to two moments of the optimiser."""
BYTES_PER_ACTIVATION = {"cuda": 4 * 4, "cpu": 4 * 3}
"""Forward, its gradient, and the algorithms' own copies."""


@attrs.frozen(kw_only=True)
class TrialMemory:
    """What a trial takes while it is trained."""

    weight_bytes: int
    """The network's, with gradients and the optimiser's state."""
    activation_bytes: int
    """Of its largest step."""

    @property
    def all_bytes(self) -> int:
        return self.weight_bytes + self.activation_bytes


def of_trial(prepared: Prepared) -> TrialMemory:
    """Return what a trial of the run's student takes."""
    student, real = prepared.config.student.component, prepared.real
    network = build(student, real.num_classes, real.image_shape, 0)
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    return TrialMemory(
        weight_bytes=weights * _BYTES_PER_WEIGHT,
        activation_bytes=prepared.step_activations * BYTES_PER_ACTIVATION[prepared.device.type],
    )


def cohort_fit(prepared: Prepared) -> int:
    """Return how many trials a GPU's free memory has room for, at least one."""
    room = int((free_bytes(prepared.device) or 0) * _COHORT_SHARE)
    return max(1, room // max(1, of_trial(prepared).all_bytes))


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free now: the GPU's, or the machine's; None where the system does not say."""
    import torch

    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
