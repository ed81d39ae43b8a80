"""Checks of a loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import torch

from ddrank_core.testing.case import Case, call, hold, refusal
from ddrank_core.testing.observed import (
    CPU,
    cloned,
    close,
    copies,
    devices,
    hold_close,
    hold_same,
    hold_unchanged,
    hold_untouched,
    is_like,
    known_generators,
    shown,
)
from ddrank_core.types import Targets

BATCH, CLASSES = 6, 4
HARD = torch.tensor([0, 1, 2, 3, 1, 0])
PARTNER = torch.tensor([3, 0, 1, 5, 4, 2])
WEIGHT = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.9])
LOGITS = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0))
SOFT = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(1))

_MIXED: dict[str, Any] = {"partner_hard": HARD[PARTNER], "weight": WEIGHT}
TARGETS: Mapping[str, Targets] = {
    "hard labels": Targets(hard=HARD),
    "soft labels as logits": Targets(hard=HARD, soft=SOFT),
    "soft labels as probabilities": Targets(hard=HARD, soft=SOFT.softmax(dim=1), soft_kind="probabilities"),
    "mixed hard labels": Targets(hard=HARD, **_MIXED),
    "mixed soft labels": Targets(hard=HARD, soft=SOFT, partner_soft=SOFT[PARTNER], **_MIXED),
}
"""Every form that targets come in."""

_LARGE = 120.0
"""At logits of this size a softmax is 0 or 1 in float32, where a careless logarithm is infinite."""
_FINITE = "the gradient of a loss is finite, and is not zero everywhere"


def why_refused(case: Case, targets: Targets) -> str | None:
    """Return the flag by which a loss says that it has no meaning with some targets."""
    if targets.soft is None:
        return "needs_soft" if case.flag("needs_soft") else None
    probabilities = targets.soft_kind == "probabilities"
    return "needs_logits" if probabilities and case.flag("needs_logits") else None


def taken(case: Case) -> dict[str, Targets]:
    """Return the targets that a loss says it takes."""
    return {words: targets for words, targets in TARGETS.items() if why_refused(case, targets) is None}


def moved(targets: Targets, device: torch.device) -> Targets:
    """Return targets on a device."""
    return _each(targets, lambda tensor: tensor.to(device))


def _each(targets: Targets, change: Any) -> Targets:
    values = {field.name: getattr(targets, field.name) for field in attrs.fields(Targets)}
    return Targets(**{k: change(v) if isinstance(v, torch.Tensor) else v for k, v in values.items()})


def _value(case: Case, logits: torch.Tensor, targets: Targets, words: str) -> torch.Tensor:
    # Copies, so that a loss that edits its input spoils no other check; a leaf is kept for its gradient.
    handed = logits if logits.requires_grad else logits.clone()
    value: torch.Tensor = call(f"training towards {words}", case.component, handed, cloned(targets))
    return value


def keeps_device_and_dtype(case: Case) -> None:
    for device in devices():
        for dtype in (torch.float32, torch.float64):
            logits = LOGITS.to(device, dtype)
            for words, targets in taken(case).items():
                value = _value(case, logits, moved(targets, device), words)
                hold(
                    is_like(value, dtype, (), device),
                    f"returned {shown(value)} for logits {shown(logits)} and {words}; "
                    "a loss is a scalar of the logits' dtype, on their device",
                )


def leaves_input(case: Case) -> None:
    for words, targets in taken(case).items():
        logits = LOGITS.clone()
        handed = cloned(targets)
        call(f"training towards {words}", case.component, logits, handed)
        hold_unchanged(copies(LOGITS), logits, "the logits")
        hold_unchanged(copies(targets), handed, "the targets")


def same_seed(case: Case) -> None:
    for words, targets in taken(case).items():
        with known_generators():
            first = _value(case, LOGITS, targets, words)
        with known_generators():
            again = _value(case, LOGITS, targets, words)
        hold_same(first, again, "the loss", "a loss depends on its logits and targets alone")


def leaves_generators(case: Case) -> None:
    for words, targets in taken(case).items():
        hold_untouched(partial(_value, case, LOGITS, targets, words), "a loss draws nothing")


def finite_gradients(case: Case) -> None:
    sure = _LARGE * torch.nn.functional.one_hot(HARD, CLASSES).float()
    for words, targets in taken(case).items():
        for size, start in {"": LOGITS, "large ": sure, "large wrong ": sure.roll(1, dims=1)}.items():
            logits = start.clone().requires_grad_()
            value = _value(case, logits, targets, words)
            hold(value.requires_grad, f"returned a value without a gradient to the logits; {_FINITE}")
            call(f"the gradient of {words}", lambda v=value: torch.autograd.backward(v.sum()))
            gradient = logits.grad
            hold(
                gradient is not None and bool(gradient.isfinite().all()) and bool(value.isfinite().all()),
                f"is {value.mean().item()} at {size}logits and {words}, and its gradient "
                f"{_spread(gradient)}; {_FINITE}",
            )
            hold(
                size != "" or bool(gradient is not None and gradient.any()),
                f"has no gradient at all towards {words}; {_FINITE}",
            )


def _spread(gradient: torch.Tensor | None) -> str:
    if gradient is None:
        return "is missing"
    bad = int((~gradient.isfinite()).sum())
    return f"has {bad} of {gradient.numel()} values that are not finite"


def mixes_labels(case: Case) -> None:
    """Weights of 1 are the image's own labels, weights of 0 its partner's."""
    for words in ("mixed hard labels", "mixed soft labels"):
        mixed = TARGETS[words]
        if why_refused(case, mixed) is not None:
            continue
        own = attrs.evolve(mixed, partner_hard=None, partner_soft=None, weight=None)
        partner = attrs.evolve(own, hard=HARD[PARTNER], soft=mixed.partner_soft)
        for whose, weight, alone in (("the image's own", 1.0, own), ("its partner's", 0.0, partner)):
            whole = attrs.evolve(mixed, weight=torch.full_like(WEIGHT, weight))
            found = _value(case, LOGITS, whole, words)
            expected = _value(case, LOGITS, alone, words)
            hold(
                close(found, expected),
                f"is {found.tolist()} for {words} of weight {weight:g}, and {expected.tolist()} for "
                f"{whose} labels alone; images that are mixed are trained towards both labels, by weight",
            )


def takes_all_labels(case: Case) -> None:
    for words, targets in TARGETS.items():
        flag = why_refused(case, targets)
        value, refused = refusal(words, partial(case.component, LOGITS.clone(), cloned(targets)), ValueError)
        if flag is None:
            hold(
                refused is None,
                f"refuses {words} ({refused}); a loss takes what its flags needs_soft and needs_logits "
                "do not exclude",
            )
            hold(
                bool(torch.as_tensor(value).isfinite().all()),
                f"is {value} for {words}; a loss of finite logits is finite",
            )
        else:
            hold(refused is not None, f"has {flag} and yet takes {words}; it must raise ValueError")


def is_mean(case: Case) -> None:
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    twice = torch.arange(BATCH).repeat(2)
    asked = "a loss is the mean over the batch, whose parts may be summed (micro_batch)"
    for words, targets in taken(case).items():
        whole = _value(case, LOGITS, targets, words)
        for how, index in (("in another order", order), ("each twice", twice)):
            found = _value(case, LOGITS[index], _each(targets, lambda t, i=index: t[i]), words)
            hold(
                close(whole, found),
                f"is {whole.tolist()} for {words}, and {found.tolist()} for the same images {how}; {asked}",
            )


def agrees_with_reference(case: Case) -> None:
    for words, targets in taken(case).items():
        expected = case.expected(LOGITS, targets)
        hold_close(
            torch.as_tensor(expected, device=CPU), _value(case, LOGITS, targets, words), f"for {words}"
        )
