"""What each component must come to, worked out one number at a time."""

from __future__ import annotations

import math

import torch
from torch import nn

from ddrank_core import Targets


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def focal(logits, targets, gamma):
    """Sum over the classes, then take the mean over the images."""
    losses = []
    for place, row in enumerate(logits.tolist()):
        pairs = zip(label_of(targets, place, len(row)), softmax(row), strict=True)
        losses.append(-sum(share * (1 - p) ** gamma * math.log(p) for share, p in pairs))
    return torch.tensor(sum(losses) / len(losses))


def label_of(targets, place, classes):
    """Return an image's label as a share of each class."""
    own = shares(targets, targets.soft, targets.hard, place, classes)
    if targets.weight is None:
        return own
    partner = shares(targets, targets.partner_soft, targets.partner_hard, place, classes)
    weight = targets.weight[place].item()
    return [weight * a + (1 - weight) * b for a, b in zip(own, partner, strict=True)]


def shares(targets, soft, hard, place, classes):
    if soft is None:
        return [float(k == hard[place]) for k in range(classes)]
    row = soft[place].tolist()
    return row if targets.soft_kind == "probabilities" else softmax(row)


def corrected(view, teachers, temperature):
    """Average the teachers, then exchange two numbers in every row that is wrong."""
    rows = []
    answers = [answer.tolist() for answer in teachers(view.images)]
    for place in range(len(view.hard)):
        each = [softmax([value / temperature for value in answer[place]]) for answer in answers]
        row = [sum(column) / len(each) for column in zip(*each, strict=True)]
        own, likeliest = own_class(view, place), row.index(max(row))
        row[own], row[likeliest] = row[likeliest], row[own]
        rows.append(row)
    mixed = {}
    if view.mixing is not None:
        mixed = {"partner_hard": view.hard[view.mixing.partner], "weight": view.mixing.weight}
    return Targets(hard=view.hard, soft=torch.tensor(rows), soft_kind="probabilities", **mixed)


def own_class(view, place):
    own = int(view.hard[place])
    if view.mixing is None or view.mixing.weight[place] >= 0.5:
        return own
    return int(view.hard[view.mixing.partner[place]])


def cutout(images, randomness, size):
    """Draw where the squares are as the component does, rows first, and empty them one by one."""
    count, _, height, width = images.shape
    rows = torch.randint(height, (count, 1), generator=randomness.device).tolist()
    columns = torch.randint(width, (count, 1), generator=randomness.device).tolist()
    emptied = images.clone()
    for image, (row,), (column,) in zip(emptied, rows, columns, strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
    return emptied


class ConvMixer(nn.Module):
    """The same weights, with convolutions written as sums over the places of their kernels."""

    def __init__(self, num_classes, image_shape, width, depth, kernel, patch):
        super().__init__()
        self.patch, self.kernel = patch, kernel
        self.stem = nn.ModuleList([nn.Conv2d(image_shape[0], width, patch), nn.BatchNorm2d(width)])
        self.blocks = nn.ModuleList(self.weights_of_block(width, kernel) for _ in range(depth))
        self.classifier = nn.Linear(width, num_classes)

    @staticmethod
    def weights_of_block(width, kernel):
        depthwise, pointwise = nn.Conv2d(width, width, kernel, groups=width), nn.Conv2d(width, width, 1)
        return nn.ModuleList([depthwise, nn.BatchNorm2d(width), pointwise, nn.BatchNorm2d(width)])

    def forward(self, images):
        features = activated(self.patches(images), self.stem[1])
        for depthwise, norm, pointwise, last_norm in self.blocks:
            features = features + activated(self.depthwise(features, depthwise), norm)
            mixed = torch.einsum("oi,bihw->bohw", pointwise.weight[:, :, 0, 0], features)
            features = activated(mixed + pointwise.bias.view(-1, 1, 1), last_norm)
        return self.classifier(features.mean(dim=(2, 3)))

    def patches(self, images):
        convolution, side = self.stem[0], self.patch
        height, width = images.shape[2] // side, images.shape[3] // side
        total = convolution.bias.view(-1, 1, 1)
        for row in range(side):
            for column in range(side):
                pixels = images[:, :, row::side, column::side][:, :, :height, :width]
                total = total + torch.einsum("oi,bihw->bohw", convolution.weight[:, :, row, column], pixels)
        return total

    def depthwise(self, features, convolution):
        height, width, reach = features.shape[2], features.shape[3], self.kernel // 2
        padded = nn.functional.pad(features, (reach,) * 4)
        total = convolution.bias.view(-1, 1, 1)
        for row in range(self.kernel):
            for column in range(self.kernel):
                window = padded[:, :, row : row + height, column : column + width]
                total = total + convolution.weight[:, 0, row, column].view(-1, 1, 1) * window
        return total


def activated(features, norm):
    """Return batch norm after GELU, as both are defined, with the statistics that the norm has kept."""
    gelu = features * (1 + torch.erf(features / math.sqrt(2))) / 2
    mean, variance, weight, bias = (
        tensor.view(-1, 1, 1) for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (gelu - mean) / torch.sqrt(variance + norm.eps) * weight + bias
