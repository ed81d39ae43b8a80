"""The label mappings: which labels reach the loss, and from where."""

from __future__ import annotations

import pytest
import torch
from ddrank_labels.hard import HardLabels
from ddrank_labels.smooth import SmoothLabels
from ddrank_labels.soft import SoftLabels
from ddrank_labels.teacher import TeacherLabels
from ddrank_losses.ce import CrossEntropy
from ddrank_losses.sce import SoftCrossEntropy
from torch.nn import functional as F

from ddrank_core import ConfigError, DataError, Mixing, View

HARD = torch.tensor([2, 0, 1])
SOFT = torch.tensor([[0.0, 1.0, 5.0], [4.0, 0.0, 1.0], [1.0, 6.0, 0.0]])
MIXING = Mixing(partner=torch.tensor([1, 2, 0]), weight=torch.tensor([0.25, 1.0, 0.6]))
IMAGES = torch.arange(3 * 2 * 2.0).reshape(3, 1, 2, 2)


def no_teachers(images):
    return ()


def two_teachers(images):
    """Give logits that depend on the images, so that a label for other images would be noticed."""
    total = images.sum(dim=(1, 2, 3))
    first = torch.stack([total, torch.zeros(3), torch.ones(3)], dim=1)
    second = torch.stack([torch.zeros(3), -total, torch.full((3,), 3.0)], dim=1)
    return first, second


@pytest.mark.parametrize(
    ("labels", "teachers"),
    [
        (HardLabels(), no_teachers),
        (SmoothLabels(), no_teachers),
        (SoftLabels(), no_teachers),
        (TeacherLabels(), two_teachers),
    ],
)
def test_every_mapping_passes_the_hard_labels_and_their_mixing(labels, teachers):
    unmixed = labels(View(images=IMAGES, hard=HARD, soft=SOFT, num_classes=3), teachers)
    assert unmixed.hard.tolist() == [2, 0, 1]
    assert unmixed.partner_hard is None
    assert unmixed.weight is None
    mixed = labels(View(images=IMAGES, hard=HARD, soft=SOFT, mixing=MIXING, num_classes=3), teachers)
    assert mixed.hard.tolist() == [2, 0, 1]
    assert mixed.partner_hard.tolist() == [0, 1, 2]
    assert mixed.weight is MIXING.weight


def test_hard_labels_ignore_stored_soft_labels_and_teachers():
    targets = HardLabels()(View(images=IMAGES, hard=HARD, soft=SOFT), two_teachers)
    assert targets.soft is None


def test_smooth_labels_spread_their_share_over_all_classes():
    targets = SmoothLabels(smoothing=0.2)(View(images=IMAGES, hard=HARD, num_classes=4), no_teachers)
    expected = [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]
    torch.testing.assert_close(targets.soft, torch.tensor(expected))
    assert targets.soft_kind == "probabilities"
    assert targets.soft.dtype == torch.float32
    assert SmoothLabels.gives_soft


def test_smooth_labels_of_mixed_images_are_mixed():
    view = View(images=IMAGES, hard=HARD, mixing=MIXING, num_classes=3)
    mixed = SmoothLabels(smoothing=0.3)(view, no_teachers).soft_probabilities()
    # 0.25 of class 2 and 0.75 of class 0, then class 0 alone, then 0.6 of class 1 and 0.4 of class 2.
    one_hot = torch.tensor([[0.75, 0.0, 0.25], [1.0, 0.0, 0.0], [0.0, 0.6, 0.4]])
    torch.testing.assert_close(mixed, 0.7 * one_hot + 0.1)


@pytest.mark.parametrize("loss", [SoftCrossEntropy(temperature=1.0), CrossEntropy()])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smooth_labels_with_cross_entropy_are_torchs_label_smoothing(smoothing, loss):
    logits = 3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    targets = SmoothLabels(smoothing=smoothing)(View(images=IMAGES, hard=HARD, num_classes=5), no_teachers)
    expected = F.cross_entropy(logits, HARD, label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, targets), expected)


def test_smooth_labels_of_mixed_images_are_the_mix_of_torchs_label_smoothing():
    logits = 3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    view = View(images=IMAGES, hard=HARD, mixing=MIXING, num_classes=5)
    own, partner = (
        F.cross_entropy(logits, hard, label_smoothing=0.1, reduction="none")
        for hard in (HARD, HARD[MIXING.partner])
    )
    expected = (MIXING.weight * own + (1 - MIXING.weight) * partner).mean()
    loss = SoftCrossEntropy(temperature=1.0)(logits, SmoothLabels(smoothing=0.1)(view, no_teachers))
    torch.testing.assert_close(loss, expected)


def test_smooth_labels_refuse_more_than_the_whole_label():
    with pytest.raises(ValueError, match="at most 1"):
        SmoothLabels(smoothing=1.1)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_soft_labels_are_passed_as_they_were_stored(kind):
    targets = SoftLabels()(View(images=IMAGES, hard=HARD, soft=SOFT, soft_kind=kind), no_teachers)
    assert targets.soft is SOFT
    assert targets.soft_kind == kind
    assert targets.partner_soft is None


def test_soft_labels_of_mixed_images_come_with_their_partners():
    targets = SoftLabels()(View(images=IMAGES, hard=HARD, soft=SOFT, mixing=MIXING), no_teachers)
    assert targets.partner_soft.tolist() == [[4.0, 0.0, 1.0], [1.0, 6.0, 0.0], [0.0, 1.0, 5.0]]
    # 0.25 * [0, 1, 5] + 0.75 * [4, 0, 1], then the first alone, then 0.6 and 0.4.
    expected = torch.tensor([[3.0, 0.25, 2.0], [4.0, 0.0, 1.0], [0.6, 4.0, 2.0]])
    torch.testing.assert_close(targets.soft_logits(), expected)


def test_missing_soft_labels_are_one_line_that_says_what_to_do():
    with pytest.raises(
        DataError, match="without stored soft labels; use the labels hard or teacher"
    ) as caught:
        SoftLabels()(View(images=IMAGES, hard=HARD), no_teachers)
    assert "\n" not in str(caught.value)


def test_teachers_label_the_view_with_the_mean_of_their_logits():
    targets = TeacherLabels()(View(images=IMAGES, hard=HARD), two_teachers)
    # The images sum to 6, 22 and 38.
    assert targets.soft.tolist() == [[3.0, -3.0, 2.0], [11.0, -11.0, 2.0], [19.0, -19.0, 2.0]]
    assert targets.soft_kind == "logits"


def test_teachers_label_the_view_with_the_mean_of_their_probabilities():
    targets = TeacherLabels(combine="probabilities")(View(images=IMAGES, hard=HARD), two_teachers)
    first, second = (logits.double().exp() for logits in two_teachers(IMAGES))
    expected = (first / first.sum(1, keepdim=True) + second / second.sum(1, keepdim=True)) / 2
    torch.testing.assert_close(targets.soft.double(), expected, rtol=1e-5, atol=1e-7)
    assert targets.soft_kind == "probabilities"


def test_one_teacher_is_passed_on_unchanged():
    targets = TeacherLabels()(View(images=IMAGES, hard=HARD), lambda images: (SOFT,))
    assert torch.equal(targets.soft, SOFT)


def test_teachers_labels_for_a_mixed_view_are_not_mixed_again():
    targets = TeacherLabels()(View(images=IMAGES, hard=HARD, mixing=MIXING), lambda images: (SOFT,))
    assert targets.partner_soft is None
    assert torch.equal(targets.soft_logits(), SOFT)


def test_teachers_in_half_precision_give_labels_in_full():
    targets = TeacherLabels()(View(images=IMAGES, hard=HARD), lambda images: (SOFT.bfloat16(),))
    assert targets.soft.dtype == torch.float32


def test_teacher_labels_without_a_teacher_are_refused_in_one_line():
    with pytest.raises(ConfigError, match="at least one teacher") as caught:
        TeacherLabels()(View(images=IMAGES, hard=HARD, soft=SOFT), no_teachers)
    assert "\n" not in str(caught.value)
