"""Which trials of an arm are trained at once, and how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import attrs

from ddrank_core.engine.capture import CudaGraphs
from ddrank_core.engine.cohort_probe import Probe, probe, try_capture
from ddrank_core.engine.memory import cohort_fit
from ddrank_core.engine.plan import Arm, Trial, replays_views
from ddrank_core.engine.train import build
from ddrank_core.engine.trial import Trainer

MOST = 256
"""More trials than any arm has; a bound for the kernels' sizes."""


@attrs.define(eq=False)
class Cohorts:
    """Says how many of an arm's trials are trained at once, and how.

    Each kind of training is tried once, on throwaway networks.
    """

    trainer: Trainer
    asked: int | None
    """Trials at once: as many as fit on a GPU, and one on a CPU, where nothing was asked for."""
    captures: bool = True
    """Whether CUDA graphs are tried."""
    probes: dict[str, Probe] = attrs.field(factory=dict)
    """Arm -> whether its trials can be trained at once."""

    def most(self, arm: Arm, trial: Trial) -> int:
        """Return how many trials like this one are trained at once."""
        size = self._size()
        return 1 if size > 1 and self.probe(arm, trial).reason is not None else size

    def split(self, arm: Arm, trials: Sequence[Trial]) -> list[Sequence[Trial]]:
        """Return the trials in groups that are trained at once, in their order."""
        size = self.most(arm, trials[0]) if len(trials) > 1 else 1
        return [trials[start : start + size] for start in range(0, len(trials), size)]

    def probe(self, arm: Arm, trial: Trial) -> Probe:
        """Return whether the arm's trials can be trained at once, and how."""
        if arm.name not in self.probes:
            prepared, setting = self.trainer.prepared, self.trainer.setting
            sample = self.trainer.material.of(arm.training, trial, setting.teachers)
            student, real = prepared.config.student.component, prepared.real
            network = build(student, real.num_classes, real.image_shape, 0).to(prepared.device)
            found = probe(network, arm.training, sample, setting)
            if found.reason is None and self._captures(arm):
                graphs = partial(CudaGraphs, self.trainer.device)
                capture = try_capture(network, arm.training, sample, setting, found.folded, graphs)
                found = attrs.evolve(found, capture=capture)
            self.probes[arm.name] = found
        return self.probes[arm.name]

    def _captures(self, arm: Arm) -> bool:
        # Stored views are of large images, whose steps are no shorter for being captured.
        on_gpu = self.trainer.device.type == "cuda"
        return self.captures and on_gpu and not replays_views(arm.training)

    def notes(self) -> tuple[str, ...]:
        """Return what was trained one by one, or uncaptured, though it was to be otherwise, and why."""
        alone = _by_reason({arm: found.reason for arm, found in self.probes.items()})
        uncaptured = _by_reason({arm: c.failed for arm, p in self.probes.items() if (c := p.capture)})
        slow = sorted({name for found in self.probes.values() for name in found.slow})
        partly = (f"Of trials trained at once, torch computes {', '.join(slow)} one by one.",) if slow else ()
        return (
            *(f"The trials of {arms} were trained one by one: {reason}." for reason, arms in alone.items()),
            *partly,
            *(
                f"The trials of {arms} were trained without CUDA graphs: {reason}."
                for reason, arms in uncaptured.items()
            ),
        )

    def _size(self) -> int:
        device = self.trainer.device
        # On a CPU cohorts only pay for tiny networks: 1.2 to 3.1 times for ConvNet-2 of width 32 on 8x8
        # images, 0.8 for ConvNet-3 of width 128 on 32x32 ones; and worker processes keep every bit.
        if self.asked is not None or device.type != "cuda":
            return self.asked or 1
        return min(MOST, cohort_fit(self.trainer.prepared))


def _by_reason(found: Mapping[str, str | None]) -> dict[str, str]:
    """Return reason -> the arms that it holds for."""
    arms: dict[str, list[str]] = {}
    for arm, reason in found.items():
        if reason is not None:
            arms.setdefault(reason.rstrip("."), []).append(arm)
    return {reason: ", ".join(names) for reason, names in arms.items()}
