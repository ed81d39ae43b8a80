"""Checks of a label mapping."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import attrs
import torch
from torch import Tensor

from ddrank_core.errors import DDRankError
from ddrank_core.testing.case import Case, call, hold, refusal
from ddrank_core.testing.losses import BATCH, CLASSES, HARD, PARTNER, SOFT, WEIGHT
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
from ddrank_core.types import Mixing, SoftKind, Targets, View

_NEEDS = ("needs_stored_soft", "needs_teacher", "replays_views")
_OF_MIXED = ("partner_hard", "partner_soft", "weight")
_MIXED = (
    "mixed images come with mixed labels: hard and partner_hard with the view's weights, and soft labels "
    "either of each image (soft, partner_soft) or of the mixed view"
)


def teachers(images: Tensor) -> tuple[Tensor, ...]:
    """Stand for two teachers, whose logits depend on the images."""
    total = images.float().mean(dim=(1, 2, 3)).view(-1, 1)
    classes = torch.arange(CLASSES, device=images.device)
    return 9 * total * classes, total - (classes - 1) ** 2


def no_teachers(images: Tensor) -> tuple[Tensor, ...]:
    """Stand for a run without teachers."""
    return ()


def view(kind: SoftKind, mixed: bool, seed: int = 2, device: torch.device = CPU) -> View:
    """Return a batch as a label mapping sees it."""
    soft = SOFT if kind == "logits" else SOFT.softmax(dim=1)
    mixing = Mixing(partner=PARTNER.to(device), weight=WEIGHT.to(device)) if mixed else None
    return View(
        images=torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(device),
        hard=HARD.to(device),
        soft=soft.to(device),
        soft_kind=kind,
        mixing=mixing,
        num_classes=CLASSES,
    )


def _views(device: torch.device = CPU) -> Iterator[tuple[str, View]]:
    for kind in SOFT_KINDS:
        for mixed in (False, True):
            yield (
                f"a {'mixed' if mixed else 'plain'} view whose soft labels are {kind}",
                view(kind, mixed, device=device),
            )


SOFT_KINDS: tuple[SoftKind, ...] = ("logits", "probabilities")


def _targets(case: Case, words: str, seen: View) -> Targets:
    asked = teachers if case.flag("needs_teacher") else no_teachers
    targets = call(f"labelling {words}", case.component, cloned(seen), asked)
    hold(isinstance(targets, Targets), f"returned {shown(targets)} for {words}, and not ddrank_core.Targets")
    found: Targets = targets
    return found


def keeps_device_and_dtype(case: Case) -> None:
    for device in devices():
        for words, seen in _views(device):
            targets = _targets(case, words, seen)
            expected = {
                "hard": (torch.int64, (BATCH,)),
                "partner_hard": (torch.int64, (BATCH,)),
                "weight": (torch.float32, (BATCH,)),
                "soft": (torch.float32, (BATCH, CLASSES)),
                "partner_soft": (torch.float32, (BATCH, CLASSES)),
            }
            for name, (dtype, shape) in expected.items():
                tensor = getattr(targets, name)
                hold(
                    is_like(tensor, dtype, shape, device) or (tensor is None and name != "hard"),
                    f"returned {name} {shown(tensor)} for {words}; "
                    f"it is {str(dtype).removeprefix('torch.')} {list(shape)} on {device.type}",
                )


def leaves_input(case: Case) -> None:
    for words, seen in _views():
        before, handed = copies(seen), cloned(seen)
        asked = teachers if case.flag("needs_teacher") else no_teachers
        call(f"labelling {words}", case.component, handed, asked)
        hold_unchanged(before, handed, "the view")


def same_seed(case: Case) -> None:
    for words, seen in _views():
        with known_generators():
            first = _targets(case, words, seen)
        with known_generators():
            again = _targets(case, words, seen)
        hold_same(first, again, "the targets", "targets depend on the view and the teachers alone")


def leaves_generators(case: Case) -> None:
    for words, seen in _views():
        hold_untouched(partial(_targets, case, words, seen), "a label mapping draws nothing")


def mixes_labels(case: Case) -> None:
    for kind in SOFT_KINDS:
        plain, mixed = (_targets(case, "a view", view(kind, mixed)) for mixed in (False, True))
        extra = [
            name for name in ("partner_hard", "partner_soft", "weight") if getattr(plain, name) is not None
        ]
        hold(not extra, f"returns {', '.join(extra)} for images that are not mixed; these are None there")
        hold(
            mixed.partner_hard is not None and torch.equal(mixed.partner_hard, plain.hard[PARTNER]),
            f"returns partner_hard {_listed(mixed.partner_hard)} for partners whose labels are "
            f"{plain.hard[PARTNER].tolist()}; {_MIXED}",
        )
        hold(
            mixed.weight is not None and close(mixed.weight, WEIGHT),
            f"returns the weights {_listed(mixed.weight)} for images mixed by {_listed(WEIGHT)}; {_MIXED}",
        )
        if mixed.soft is not None and not case.flag("replays_views"):
            _hold_soft_mixed(case, kind, plain, mixed)


def _hold_soft_mixed(case: Case, kind: SoftKind, plain: Targets, mixed: Targets) -> None:
    """Fail if soft labels of the images alone are given for their mixture."""
    if mixed.partner_soft is not None and plain.soft is not None:
        hold(
            close(mixed.partner_soft, plain.soft[PARTNER]),
            f"returns a partner_soft that is not the partners' soft labels; {_MIXED}",
        )
        return
    other = _targets(case, "a view", view(kind, mixed=True, seed=3))
    of_the_view = other.soft is None or mixed.soft is None or not torch.equal(other.soft, mixed.soft)
    knows = plain.soft is None or mixed.soft is None or not torch.equal(plain.soft, mixed.soft)
    hold(
        of_the_view or knows,
        f"returns the soft labels of the unmixed images for a mixed view, without partner_soft; {_MIXED}",
    )


def _listed(tensor: Tensor | None) -> str:
    return "None" if tensor is None else str([round(value, 3) for value in tensor.tolist()])


def gives_soft(case: Case) -> None:
    declared = case.flag("gives_soft")
    for words, seen in _views():
        targets = _targets(case, words, seen)
        hold(
            (targets.soft is not None) == declared,
            f"has gives_soft = {declared} and returns soft {shown(targets.soft)} for {words}; "
            "a config is checked by that class variable before anything is trained",
        )
        if targets.soft is not None:
            probabilities = call(f"the probabilities of {words}", targets.soft_probabilities)
            total = probabilities.sum(dim=1)
            hold(
                bool((probabilities >= 0).all()) and close(total, torch.ones_like(total)),
                f"returns soft labels of soft_kind {targets.soft_kind} whose probabilities sum to "
                f"{_listed(total)} for {words}; every image's sum to 1",
            )


def says_what_it_misses(case: Case) -> None:
    needs = [flag for flag in _NEEDS if case.flag(flag)]
    bare = attrs.evolve(view("logits", mixed=False), soft=None)
    what = "a view without stored soft labels, and no teachers,"
    _, refused = refusal(what, partial(case.component, cloned(bare), no_teachers), DDRankError, ValueError)
    if needs:
        hold(
            refused is not None,
            f"has {' and '.join(needs)} and takes {what} too; it must raise DataError or ConfigError",
        )
    else:
        hold(
            refused is None,
            f"refuses {what} ({refused}); what it needs it declares in {', '.join(_NEEDS)}",
        )


def agrees_with_reference(case: Case) -> None:
    asked = teachers if case.flag("needs_teacher") else no_teachers
    for words, seen in _views():
        hold_close(case.expected(seen, asked), _targets(case, words, seen), f"for {words}")
