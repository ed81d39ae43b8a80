"""The losses against their published definitions, written out with Python's own numbers."""

from __future__ import annotations

import math

import pytest
import torch
from ddrank_losses.ce import CrossEntropy
from ddrank_losses.kl import KLDivergence
from ddrank_losses.mse import MSE
from ddrank_losses.mse_gt import MSEGroundTruth
from ddrank_losses.sce import SoftCrossEntropy
from torch.nn import functional as F

from ddrank_core import Targets

BATCH, CLASSES = 6, 5


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS = draw(BATCH, CLASSES, seed=1)
TEACHER = draw(BATCH, CLASSES, seed=2)
HARD = torch.tensor([0, 4, 2, 2, 1, 3])
PARTNER = torch.tensor([3, 0, 5, 1, 4, 2])
WEIGHT = torch.tensor([1.0, 0.0, 0.3, 0.5, 0.75, 0.9])
MIXED = {"hard": HARD, "partner_hard": HARD[PARTNER], "weight": WEIGHT}
MIXED_SOFT = {**MIXED, "soft": TEACHER, "partner_soft": TEACHER[PARTNER]}


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / math.fsum(powers) for power in powers]


def naive_cross_entropy(labels: list[list[float]], logits: torch.Tensor, temperature: float = 1.0) -> float:
    """-sum_k p_k log q_k, mean over the batch."""
    rows = [softmax(row, temperature) for row in logits.tolist()]
    terms = [
        -p * math.log(q) for ps, qs in zip(labels, rows, strict=True) for p, q in zip(ps, qs, strict=True)
    ]
    return math.fsum(terms) / len(rows)


def naive_divergence(labels: list[list[float]], logits: torch.Tensor, temperature: float = 1.0) -> float:
    """sum_k p_k log(p_k / q_k), mean over the batch, 0 log 0 = 0."""
    entropy = -math.fsum(p * math.log(p) for row in labels for p in row if p > 0) / len(labels)
    return naive_cross_entropy(labels, logits, temperature) - entropy


def naive_mix(own: list[list[float]]) -> list[list[float]]:
    weights, partners = WEIGHT.tolist(), PARTNER.tolist()
    return [
        [w * a + (1 - w) * b for a, b in zip(own[i], own[partners[i]], strict=True)]
        for i, w in enumerate(weights)
    ]


def one_hot(smoothing: float = 0.0) -> list[list[float]]:
    on, spread = 1 - smoothing, smoothing / CLASSES
    return [[on * (k == label) + spread for k in range(CLASSES)] for label in HARD.tolist()]


def softened(logits: torch.Tensor, temperature: float = 1.0) -> list[list[float]]:
    return [softmax(row, temperature) for row in logits.tolist()]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_takes_the_hard_labels_where_there_are_no_soft_ones(smoothing):
    loss = CrossEntropy(label_smoothing=smoothing)(LOGITS, Targets(hard=HARD))
    assert loss.item() == pytest.approx(naive_cross_entropy(one_hot(smoothing), LOGITS), rel=1e-5)
    assert loss.item() == F.cross_entropy(LOGITS, HARD, label_smoothing=smoothing).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_mixes_hard_labels_by_weight(smoothing):
    loss = CrossEntropy(label_smoothing=smoothing)(LOGITS, Targets(**MIXED))
    assert loss.item() == pytest.approx(naive_cross_entropy(naive_mix(one_hot(smoothing)), LOGITS), rel=1e-5)


def test_cross_entropy_takes_soft_labels_before_hard_ones():
    loss = CrossEntropy()(LOGITS, Targets(hard=HARD, soft=TEACHER))
    assert loss.item() == pytest.approx(naive_cross_entropy(softened(TEACHER), LOGITS), rel=1e-5)


def test_cross_entropy_mixes_soft_labels_as_probabilities():
    loss = CrossEntropy()(LOGITS, Targets(**MIXED_SOFT))
    assert loss.item() == pytest.approx(naive_cross_entropy(naive_mix(softened(TEACHER)), LOGITS), rel=1e-5)


def test_cross_entropy_smooths_soft_labels_too():
    labels = [[0.9 * p + 0.1 / CLASSES for p in row] for row in softened(TEACHER)]
    loss = CrossEntropy(label_smoothing=0.1)(LOGITS, Targets(hard=HARD, soft=TEACHER))
    assert loss.item() == pytest.approx(naive_cross_entropy(labels, LOGITS), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("scale_loss", [False, True])
@pytest.mark.parametrize(
    ("loss_class", "naive"), [(SoftCrossEntropy, naive_cross_entropy), (KLDivergence, naive_divergence)]
)
def test_temperature_softens_labels_and_student(loss_class, naive, temperature, scale_loss):
    loss = loss_class(temperature=temperature, scale_loss=scale_loss)(
        LOGITS, Targets(hard=HARD, soft=TEACHER)
    )
    expected = naive(softened(TEACHER, temperature), LOGITS, temperature)
    factor = temperature**2 if scale_loss else 1.0
    assert loss.item() == pytest.approx(factor * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("loss_class", "naive"), [(SoftCrossEntropy, naive_cross_entropy), (KLDivergence, naive_divergence)]
)
def test_soft_labels_of_mixed_images_are_softened_and_then_mixed(loss_class, naive):
    loss = loss_class(temperature=2.0)(LOGITS, Targets(**MIXED_SOFT))
    assert loss.item() == pytest.approx(naive(naive_mix(softened(TEACHER, 2.0)), LOGITS, 2.0), rel=1e-4)


@pytest.mark.parametrize("loss_class", [SoftCrossEntropy, KLDivergence])
def test_stored_probabilities_are_softened_as_the_logits_they_came_from(loss_class):
    loss = loss_class(temperature=3.0)
    probabilities = Targets(hard=HARD, soft=TEACHER.softmax(dim=1), soft_kind="probabilities")
    torch.testing.assert_close(
        loss(LOGITS, probabilities), loss(LOGITS, Targets(hard=HARD, soft=TEACHER)), rtol=1e-5, atol=1e-6
    )


def test_soft_cross_entropy_and_divergence_have_the_same_gradient():
    gradients = []
    for loss in (SoftCrossEntropy(temperature=2.0), KLDivergence(temperature=2.0)):
        logits = LOGITS.clone().requires_grad_()
        loss(logits, Targets(hard=HARD, soft=TEACHER)).backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_divergence_is_zero_between_equals():
    loss = KLDivergence(temperature=2.0)(LOGITS, Targets(hard=HARD, soft=LOGITS))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_squared_error_is_the_mean_over_images_and_classes():
    loss = MSEGroundTruth(mse_weight=0.5)(LOGITS, Targets(hard=HARD, soft=TEACHER))
    squares = [
        (s - t) ** 2
        for student, teacher in zip(LOGITS.tolist(), TEACHER.tolist(), strict=True)
        for s, t in zip(student, teacher, strict=True)
    ]
    assert loss.item() == pytest.approx(0.5 * math.fsum(squares) / (BATCH * CLASSES), rel=1e-5)


def test_mse_gt_adds_the_cross_entropy_with_the_hard_labels():
    loss = MSEGroundTruth(mse_weight=2.0, ce_weight=0.25)(LOGITS, Targets(hard=HARD, soft=TEACHER))
    expected = 2.0 * F.mse_loss(LOGITS, TEACHER) + 0.25 * F.cross_entropy(LOGITS, HARD)
    torch.testing.assert_close(loss, expected)


def test_mse_gt_mixes_both_kinds_of_labels():
    loss = MSEGroundTruth(mse_weight=1.0, ce_weight=0.1)(LOGITS, Targets(**MIXED_SOFT))
    squared = F.mse_loss(LOGITS, torch.tensor(naive_mix(TEACHER.tolist()))).item()
    expected = squared + 0.1 * naive_cross_entropy(naive_mix(one_hot()), LOGITS)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_mse_gt_refuses_probabilities():
    with pytest.raises(ValueError, match="needs logits"):
        MSEGroundTruth()(LOGITS, Targets(hard=HARD, soft=TEACHER.softmax(dim=1), soft_kind="probabilities"))


def test_mse_gt_refuses_two_zero_weights():
    with pytest.raises(ValueError, match="both 0"):
        MSEGroundTruth(mse_weight=0.0, ce_weight=0.0)


def test_mse_is_torchs_mean_over_images_and_classes():
    expected = F.mse_loss(LOGITS, TEACHER)
    torch.testing.assert_close(MSE()(LOGITS, Targets(hard=HARD, soft=TEACHER)), expected)


def naive_squared_error(labels: list[list[float]], logits: torch.Tensor) -> float:
    pairs = zip(labels, logits.tolist(), strict=True)
    squares = [(t - s) ** 2 for ts, ss in pairs for t, s in zip(ts, ss, strict=True)]
    return math.fsum(squares) / len(squares)


T = 2.0
PROBABILITIES = TEACHER.softmax(dim=1)
KINDS = {
    "hard": Targets(hard=HARD),
    "logits": Targets(hard=HARD, soft=TEACHER),
    "probabilities": Targets(hard=HARD, soft=PROBABILITIES, soft_kind="probabilities"),
    "mixed hard": Targets(**MIXED),
    "mixed logits": Targets(**MIXED_SOFT),
    "mixed probabilities": Targets(
        **MIXED, soft=PROBABILITIES, partner_soft=PROBABILITIES[PARTNER], soft_kind="probabilities"
    ),
    # A teacher that saw the mixed images: its labels are not mixed again.
    "mixed, teacher's logits": Targets(**MIXED, soft=TEACHER),
}
NO_SOFT, NO_LOGITS = "no soft labels", "probabilities, and this loss needs logits"

SOFT = {
    "hard": NO_SOFT,
    "logits": softened(TEACHER, T),
    "probabilities": softened(TEACHER, T),
    "mixed hard": NO_SOFT,
    "mixed logits": naive_mix(softened(TEACHER, T)),
    "mixed probabilities": naive_mix(softened(TEACHER, T)),
    "mixed, teacher's logits": softened(TEACHER, T),
}
SQUARED = {
    "hard": NO_SOFT,
    "logits": TEACHER.tolist(),
    "probabilities": NO_LOGITS,
    "mixed hard": NO_SOFT,
    "mixed logits": naive_mix(TEACHER.tolist()),
    "mixed probabilities": NO_LOGITS,
    "mixed, teacher's logits": TEACHER.tolist(),
}


def naive_ce(kind: str) -> float:
    labels = {
        "hard": one_hot(),
        "mixed hard": naive_mix(one_hot()),
        "mixed logits": naive_mix(softened(TEACHER)),
        "mixed probabilities": naive_mix(softened(TEACHER)),
    }
    return naive_cross_entropy(labels.get(kind, softened(TEACHER)), LOGITS)


def naive_mse_gt(kind: str) -> float:
    hard = naive_mix(one_hot()) if kind.startswith("mixed") else one_hot()
    return naive_squared_error(SQUARED[kind], LOGITS) + 0.1 * naive_cross_entropy(hard, LOGITS)


TABLE = [
    (CrossEntropy(), dict.fromkeys(KINDS), naive_ce),
    (SoftCrossEntropy(temperature=T), SOFT, lambda kind: naive_cross_entropy(SOFT[kind], LOGITS, T)),
    (KLDivergence(temperature=T), SOFT, lambda kind: naive_divergence(SOFT[kind], LOGITS, T)),
    (MSE(), SQUARED, lambda kind: naive_squared_error(SQUARED[kind], LOGITS)),
    (MSEGroundTruth(ce_weight=0.1), SQUARED, naive_mse_gt),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("loss", "labels", "naive"), TABLE, ids=[type(row[0]).__name__ for row in TABLE])
def test_every_loss_takes_every_kind_of_targets_or_says_why_not(loss, labels, naive, kind):
    if isinstance(labels[kind], str):
        with pytest.raises(ValueError, match=labels[kind]) as caught:
            loss(LOGITS, KINDS[kind])
        assert "\n" not in str(caught.value)
    else:
        assert loss(LOGITS, KINDS[kind]).item() == pytest.approx(naive(kind), rel=1e-4)


@pytest.mark.parametrize(("loss", "labels"), [row[:2] for row in TABLE], ids=lambda v: type(v).__name__)
def test_what_a_loss_says_it_needs_is_what_it_refuses_to_go_without(loss, labels):
    refused = {problem for problem in labels.values() if isinstance(problem, str)}
    assert (NO_SOFT in refused) == getattr(loss, "needs_soft", False)
    assert (NO_LOGITS in refused) == getattr(loss, "needs_logits", False)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_divergence_is_the_batchmean_of_torch_without_the_square_of_the_temperature(temperature):
    """As SRe2L, RDED, G-VBSM and EDC train: `KLDivLoss(reduction="batchmean")`, both sides softened."""
    student, teacher = (values / temperature for values in (LOGITS, TEACHER))
    expected = F.kl_div(student.log_softmax(dim=1), teacher.softmax(dim=1), reduction="batchmean")
    loss = KLDivergence(temperature=temperature)(LOGITS, Targets(hard=HARD, soft=TEACHER))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-7)


SOFT_LOSSES = [SoftCrossEntropy(), KLDivergence(), MSE(), MSEGroundTruth(ce_weight=0.1)]


@pytest.mark.parametrize("loss", SOFT_LOSSES)
def test_soft_losses_refuse_targets_without_soft_labels(loss):
    with pytest.raises(ValueError, match="no soft labels"):
        loss(LOGITS, Targets(hard=HARD))


@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("loss_class", [SoftCrossEntropy, KLDivergence])
def test_zero_probabilities_give_finite_losses_and_gradients(loss_class, temperature):
    labels = torch.eye(CLASSES)[HARD]
    logits = (30 * LOGITS).requires_grad_()
    loss = loss_class(temperature=temperature)(
        logits, Targets(hard=HARD, soft=labels, soft_kind="probabilities")
    )
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    # The labels are one-hot, at any temperature, and so have no entropy.
    expected = F.cross_entropy(logits.detach() / temperature, HARD)
    torch.testing.assert_close(loss.detach(), expected)


def test_near_uniform_probabilities_survive_a_low_temperature():
    labels = torch.full((1, 1000), 1e-3)
    loss = KLDivergence(temperature=0.05)(
        torch.zeros(1, 1000),
        Targets(hard=torch.zeros(1, dtype=torch.int64), soft=labels, soft_kind="probabilities"),
    )
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


EVERY_LOSS_AND_LABEL = [
    (CrossEntropy(), Targets(hard=HARD)),
    (CrossEntropy(label_smoothing=0.1), Targets(**MIXED)),
    *((loss, Targets(**MIXED_SOFT)) for loss in [CrossEntropy(), *SOFT_LOSSES]),
]


@pytest.mark.parametrize(("loss", "targets"), EVERY_LOSS_AND_LABEL)
def test_gradients_are_those_of_finite_differences(loss, targets):
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss(values, targets), logits)


@pytest.mark.parametrize(("loss", "targets"), EVERY_LOSS_AND_LABEL)
def test_losses_of_many_students_are_computed_as_one(loss, targets):
    students = draw(4, BATCH, CLASSES, seed=3)
    together = torch.func.vmap(lambda logits: loss(logits, targets))(students)
    torch.testing.assert_close(together, torch.stack([loss(logits, targets) for logits in students]))


@pytest.mark.parametrize(("loss", "targets"), EVERY_LOSS_AND_LABEL)
def test_losses_take_half_precision_logits(loss, targets):
    torch.testing.assert_close(
        loss(LOGITS.bfloat16(), targets).float(), loss(LOGITS, targets), rtol=0.03, atol=0.03
    )


@pytest.mark.parametrize(
    ("loss_class", "parameters", "message"),
    [
        (CrossEntropy, {"label_smoothing": 1.0}, "less than 1"),
        (CrossEntropy, {"label_smoothing": -0.1}, "at least 0"),
        (SoftCrossEntropy, {"temperature": 0.0}, "greater than 0"),
        (KLDivergence, {"temperature": -1.0}, "greater than 0"),
        (MSEGroundTruth, {"mse_weight": -1.0}, "at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(loss_class, parameters, message):
    with pytest.raises(ValueError, match=message):
        loss_class(**parameters)
