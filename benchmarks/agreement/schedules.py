"""Ask ddranking 0.2.0's schedules and optimisers, and ours, for the same steps.

Run it with the peer's Python (`benchmarks/peer/setup.sh` makes it), with the root and the plugins of this
project on the path:

    PYTHONPATH=.:plugins PEER/bin/python benchmarks/agreement/schedules.py

Every epoch's learning rate is compared, and the weights after 20 steps. Ends with exit code 1 if what should
agree differs by more than 1e-5, or if the listed disagreement is none.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import torch
from ddranking.utils import get_lr_scheduler, get_optimizer
from torch import Tensor, nn

from ddrank_core.engine.optimizers import SGD, Adam, AdamW
from ddrank_core.engine.schedules import Cosine, HalfCosine, Step

TOLERANCE, EPOCHS, RATE = 1e-5, 100, 0.3

SCHEDULES = {
    "step": (Step(step_size=30), {"step_size": 30}),
    "cosine": (HalfCosine(), {"num_epochs": EPOCHS}),
    "cosineannealing": (Cosine(), {"num_epochs": EPOCHS}),
}
OPTIMIZERS = {
    "sgd": SGD(momentum=0.9, weight_decay=0.0005),
    "adam": Adam(weight_decay=0.0005),
    "adamw": AdamW(weight_decay=0.01),
}


def main() -> int:
    worst = 0.0
    for name, (ours, arguments) in SCHEDULES.items():
        found = [RATE * ours.factor(epoch, EPOCHS) for epoch in range(EPOCHS)]
        worst = max(worst, said(f"schedule {name}", max_difference(peer_rates(name, arguments), found)))
    for name, optimizer in OPTIMIZERS.items():
        ours_, theirs = network(), network()
        decay, momentum = optimizer.weight_decay, getattr(optimizer, "momentum", 0.0)
        train(ours_, optimizer.build(ours_.parameters(), 0.01))
        train(theirs, get_optimizer(name, theirs, 0.01, decay, momentum))
        worst = max(worst, said(f"optimizer {name}", weights(ours_).sub(weights(theirs)).abs().max().item()))
    apart = max_difference(peer_rates("cosine", {"num_epochs": EPOCHS}), rates(Cosine()))
    print(f"disagreement: its 'cosine' ends at {peer_rates('cosine', {'num_epochs': EPOCHS})[-1] / RATE:.2f}")
    print(
        "  of the first rate; ours ends at 0 and calls the other half-cosine. Who is right: a cosine schedule"
    )
    print("  (Loshchilov & Hutter 2017) ends at its minimum; RDED's code halves the argument.")
    print(f"ddranking {version('ddranking')}, torch {torch.__version__}: largest difference {worst:.1e}")
    return int(worst > TOLERANCE or apart < 0.1)


def rates(schedule: Cosine) -> list[float]:
    return [RATE * schedule.factor(epoch, EPOCHS) for epoch in range(EPOCHS)]


def peer_rates(name: str, arguments: dict[str, int]) -> list[float]:
    """Return the rate of every epoch, as its loop steps the schedule: once after each."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule = get_lr_scheduler(name, optimizer, **arguments)
    found = []
    for _ in range(EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    draws = torch.Generator().manual_seed(1)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 6, generator=draws)).square().sum().backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def max_difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def said(name: str, difference: float) -> float:
    print(f"{name:28} {difference:.1e}")
    return difference


if __name__ == "__main__":
    sys.exit(main())
