"""Components that keep the contract, and ones that each break it in one place, for the conformance kit."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from ddrank_core import (
    Augmented,
    DatasetFacts,
    DistilledSet,
    ImageSpace,
    Mixing,
    RealData,
    Targets,
    component,
    parameter,
)

FAULTS: dict[str, tuple[str, type, str]] = {}
"""Name -> kind, class, and the one check that catches it."""
GOOD: dict[str, tuple[str, type]] = {}
"""Name -> kind and class."""


def good(kind: str) -> Callable[[type], type]:
    """Register a component that keeps the contract."""

    def register(cls: type) -> type:
        GOOD[f"good/{cls.__name__}"] = kind, component(cls)
        return GOOD[f"good/{cls.__name__}"][1]

    return register


def faulty(kind: str, check: str, made: Callable[[type], type] = component) -> Callable[[type], type]:
    """Register a component that breaks the contract where `check` looks."""

    def register(cls: type) -> type:
        FAULTS[f"faulty/{cls.__name__}"] = kind, made(cls), check
        return FAULTS[f"faulty/{cls.__name__}"][1]

    return register


_CALLS = itertools.count()


def noise() -> float:
    """Return something small that no seed gives: another one than the last time."""
    return 3e-7 * (1 + next(_CALLS) % 3)


# -- losses ------------------------------------------------------------------------------------


def log_probabilities(logits: Any, targets: Targets) -> Any:
    """Return the cross-entropy of each image with its labels, mixed where they are: [B]."""
    from torch.nn.functional import one_hot

    log_p = logits.log_softmax(dim=1)
    if targets.soft is not None:
        return -(targets.soft_probabilities().to(log_p.dtype) * log_p).sum(dim=1)
    own = -(one_hot(targets.hard, logits.shape[1]) * log_p).sum(dim=1)
    if targets.weight is None:
        return own
    partner = -(one_hot(targets.partner_hard, logits.shape[1]) * log_p).sum(dim=1)
    return targets.weight * own + (1 - targets.weight) * partner


@good("loss")
class Loss:
    """Train with cross-entropy."""

    scale: float = parameter("multiplies the loss", default=1.0, above=0)

    def __call__(self, logits, targets):
        return self.scale * log_probabilities(logits, targets).mean()


@faulty("loss", "the parameters are frozen", attrs.define(kw_only=True))
class LossNotFrozen:
    """Train."""

    scale: float = parameter("multiplies the loss", default=1.0, above=0)

    def __call__(self, logits, targets):
        return self.scale * log_probabilities(logits, targets).mean()


@faulty("loss", "the parameters are annotated and documented")
class LossUndocumented(Loss):
    """Train."""

    power: float = 1.0


@faulty("loss", "the parameters are annotated and documented")
class LossNotAnnotated(Loss):
    """Train."""

    power = parameter("of nothing", default=1.0)


@faulty("loss", "the parameters are annotated and documented")
class LossWithoutDocstring(Loss):
    power: float = parameter("of nothing", default=1.0)


@faulty("loss", "survives a config")
class LossWithWrongDefault(Loss):
    """Train."""

    power: int = attrs.field(default=1.5, metadata={"doc": "of nothing"})


@attrs.frozen
class Stubborn:
    """A part of a component that cannot travel to another process."""

    size: int = 1

    def __reduce__(self):
        raise TypeError("not to be pickled")


@faulty("loss", "survives pickling")
class LossNotPickled(Loss):
    """Train."""

    options: Stubborn = parameter("of nothing", default=Stubborn())


@faulty("loss", "bad parameters are refused")
class LossChecksBadly(Loss):
    """Train."""

    power: float = parameter("of nothing", default=1.0, check=lambda value: None if 1 / value else "no")


@faulty("loss", "takes every kind of label or says that it does not")
class LossNeedsNoSoft(Loss):
    """Train."""

    needs_soft: ClassVar[bool] = True


@faulty("loss", "device and dtype are kept")
class LossFloats(Loss):
    """Train."""

    def __call__(self, logits, targets):
        return log_probabilities(logits, targets).mean().float()


@faulty("loss", "the input is left as it was")
class LossEdits(Loss):
    """Train."""

    def __call__(self, logits, targets):
        own = targets if targets.weight is None else attrs.evolve(targets, weight=targets.weight.clone())
        loss = log_probabilities(logits, own).mean()
        if targets.weight is not None:
            targets.weight.fill_(1)
        return loss


@faulty("loss", "the same seed gives the same output")
class LossNoisy(Loss):
    """Train."""

    def __call__(self, logits, targets):
        return log_probabilities(logits, targets).mean() + noise()


@faulty("loss", "the global random state is left as it was")
class LossDraws(Loss):
    """Train."""

    def __call__(self, logits, targets):
        random.random()
        return log_probabilities(logits, targets).mean()


@faulty("loss", "gradients are finite")
class LossLogOfSoftmax(Loss):
    """Train."""

    def __call__(self, logits, targets):
        careless = logits.softmax(dim=1).log()
        return log_probabilities(careless, targets).mean()


@faulty("loss", "mixed images come with mixed labels")
class LossIgnoresPartner(Loss):
    """Train."""

    def __call__(self, logits, targets):
        alone = attrs.evolve(targets, partner_hard=None, partner_soft=None, weight=None)
        return log_probabilities(logits, alone).mean()


@faulty("loss", "is a mean over the batch")
class LossSums(Loss):
    """Train."""

    def __call__(self, logits, targets):
        return log_probabilities(logits, targets).sum()


@faulty("loss", "trains in a cohort")
class LossWaits(Loss):
    """Train."""

    def __call__(self, logits, targets):
        loss = log_probabilities(logits, targets).mean()
        return loss if loss.item() > 0 else -loss


@faulty("loss", "agrees with its reference")
class LossIgnoresScale(Loss):
    """Train."""

    def __call__(self, logits, targets):
        return log_probabilities(logits, targets).mean()


def loss_by_hand(logits, targets, scale):
    return scale * log_probabilities(logits, targets).mean()


# -- label mappings ----------------------------------------------------------------------------


@good("label-mapping")
class Labels:
    """Smooth the labels."""

    gives_soft: ClassVar[bool] = True

    def __call__(self, view, teachers):
        soft = self.soft(view)
        if view.mixing is None:
            return Targets(hard=view.hard, soft=soft, soft_kind="probabilities")
        partner = view.mixing.partner
        return Targets(
            hard=view.hard,
            partner_hard=view.hard[partner],
            weight=view.mixing.weight,
            soft=soft,
            partner_soft=soft[partner],
            soft_kind="probabilities",
        )

    def soft(self, view, smoothing=0.1):
        from torch.nn.functional import one_hot

        return (1 - smoothing) * one_hot(view.hard, view.num_classes) + smoothing / view.num_classes


@faulty("label-mapping", "gives soft labels where it says so")
class LabelsUnsaid(Labels):
    """Smooth the labels."""

    gives_soft: ClassVar[bool] = False


@faulty("label-mapping", "says what it misses")
class LabelsNeedNothing(Labels):
    """Smooth the labels."""

    needs_stored_soft: ClassVar[bool] = True


@faulty("label-mapping", "device and dtype are kept")
class LabelsDouble(Labels):
    """Smooth the labels."""

    def soft(self, view, smoothing=0.1):
        return Labels().soft(view).double()


@faulty("label-mapping", "the input is left as it was")
class LabelsEdit(Labels):
    """Smooth the labels."""

    def __call__(self, view, teachers):
        if view.soft is not None:
            view.soft.zero_()
        return Labels()(view, teachers)


@faulty("label-mapping", "the same seed gives the same output")
class LabelsNoisy(Labels):
    """Smooth the labels."""

    def soft(self, view, smoothing=0.1):
        return Labels().soft(view) + noise()


@faulty("label-mapping", "the global random state is left as it was")
class LabelsDraw(Labels):
    """Smooth the labels."""

    def __call__(self, view, teachers):
        import numpy as np

        np.random.rand()
        return Labels()(view, teachers)


@faulty("label-mapping", "mixed images come with mixed labels")
class LabelsOfOne(Labels):
    """Smooth the labels."""

    def __call__(self, view, teachers):
        return attrs.evolve(Labels()(view, teachers), partner_soft=None)


@faulty("label-mapping", "mixed images come with mixed labels")
class LabelsOfWrongPartner(Labels):
    """Smooth the labels."""

    def __call__(self, view, teachers):
        targets = Labels()(view, teachers)
        return targets if targets.weight is None else attrs.evolve(targets, partner_hard=view.hard)


@faulty("label-mapping", "trains in a cohort")
class LabelsOfBatch(Labels):
    """Smooth the labels by how many images there are."""

    def soft(self, view, smoothing=0.1):
        return Labels().soft(view, 0.01 * len(view.hard))


@faulty("label-mapping", "agrees with its reference")
class LabelsOther(Labels):
    """Smooth the labels."""

    def soft(self, view, smoothing=0.1):
        return Labels().soft(view, 0.2)


def labels_by_hand(view, teachers):
    return Labels()(view, teachers)


# -- augmentations -----------------------------------------------------------------------------


@good("augmentation")
class Flip:
    """Flip some images."""

    def __call__(self, images, randomness):
        import torch

        draws = torch.rand(len(images), generator=randomness.device, device=images.device)
        return Augmented(images.flip(3).where((draws < 0.5).view(-1, 1, 1, 1), images))


@good("augmentation")
class Mixup:
    """Mix every image with another one."""

    mixes: ClassVar[bool] = True

    def __call__(self, images, randomness):
        import torch

        partner = torch.randperm(len(images), generator=randomness.device, device=images.device)
        weight = torch.full((len(images),), 0.75, device=images.device)
        return Augmented(0.75 * images + 0.25 * images[partner], Mixing(partner, weight))


@faulty("augmentation", "takes the image shapes that it claims")
class FlipInfinite(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        images = images.clone()
        images[:, :, 0, 0] = float("inf")
        return Augmented(images)


@faulty("augmentation", "device and dtype are kept")
class FlipDouble(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        return Augmented(images.double())


@faulty("augmentation", "the input is left as it was")
class FlipEdits(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        return Augmented(images.clamp_(-1, 0.5).clone())


@faulty("augmentation", "the same seed gives the same output")
class FlipNoisy(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        return Augmented(images + noise())


@faulty("augmentation", "the global random state is left as it was")
class FlipDraws(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        import torch

        torch.rand(())
        return Augmented(images.clone())


@faulty("augmentation", "mixed images come with mixed labels")
class MixupUnsaid(Flip):
    """Mix."""

    def __call__(self, images, randomness):
        return Augmented(0.75 * images + 0.25 * images.roll(1, dims=0))


@faulty("augmentation", "mixed images come with mixed labels")
class MixupOfAnotherPartner(Mixup):
    """Mix."""

    def __call__(self, images, randomness):
        import torch

        partner = torch.arange(len(images), device=images.device)
        weight = torch.full((len(images),), 0.75, device=images.device)
        return Augmented(0.75 * images + 0.25 * images.flip(0), Mixing(partner, weight))


@faulty("augmentation", "mixed images come with mixed labels")
class MixupOfShares(Mixup):
    """Mix."""

    def __call__(self, images, randomness):
        augmented = Mixup()(images, randomness)
        return attrs.evolve(augmented, mixing=Mixing(augmented.mixing.partner, 3 * augmented.mixing.weight))


@faulty("augmentation", "trains in a cohort")
class FlipNotDouble(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        if "64" in str(images.dtype):
            raise ValueError("faulty/FlipNotDouble: takes no float64")
        return Augmented(images.clone())


@faulty("augmentation", "agrees with its reference")
class FlipNever(Flip):
    """Flip."""

    def __call__(self, images, randomness):
        return Augmented(images.clone())


def flip_by_hand(images, randomness):
    return Flip()(images, randomness)


# -- architectures -----------------------------------------------------------------------------


@good("architecture")
class Network:
    """Build a small network."""

    width: int = parameter("channels", default=4, minimum=1, maximum=64)

    def build(self, num_classes, image_shape):
        from torch import nn

        layers = (nn.Conv2d(image_shape[0], self.width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.width, num_classes))


@faulty("architecture", "takes the image shapes that it claims")
class NetworkOfEight(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        if image_shape[2] != 8:
            raise ValueError("faulty/NetworkOfEight takes images of 8 pixels")
        return Network().build(num_classes, image_shape)


@faulty("architecture", "takes other shapes or says that it does not")
class NetworkOfPools(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        from torch import nn

        return nn.Sequential(nn.MaxPool2d(2), Network().build(num_classes, image_shape))


@faulty("architecture", "device and dtype are kept")
class NetworkEvaluates(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        return Network().build(num_classes, image_shape).eval()


@faulty("architecture", "the input is left as it was")
class NetworkEdits(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        from torch import nn

        return nn.Sequential(nn.ReLU(inplace=True), Network().build(num_classes, image_shape))


@faulty("architecture", "the same seed gives the same output")
class NetworkNoisy(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        network = Network().build(num_classes, image_shape)
        network[0].bias.data.add_(next(_CALLS) * 1e-3)
        return network


@faulty("architecture", "the global random state is left as it was")
class NetworkDraws(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        random.random()
        return Network().build(num_classes, image_shape)


@faulty("architecture", "gradients are finite")
class NetworkOfRoots(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        from torch import nn

        class Root(nn.Module):
            def forward(self, features):
                return (features * (features > 0)).square().sqrt()

        network = Network().build(num_classes, image_shape)
        return nn.Sequential(network[0], Root(), *network[2:])


@faulty("architecture", "trains in a cohort")
class NetworkDrops(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        from torch import nn

        return nn.Sequential(nn.Dropout(0.1), Network().build(num_classes, image_shape))


@faulty("architecture", "agrees with its reference")
class NetworkOther(Network):
    """Build."""

    def build(self, num_classes, image_shape):
        from torch import nn

        network = Network().build(num_classes, image_shape)
        return nn.Sequential(network[0], nn.GELU(), *network[2:])


def network_by_hand(num_classes, image_shape, width):
    return Network(width=width).build(num_classes, image_shape)


# -- data sets ---------------------------------------------------------------------------------


@good("dataset")
class Data:
    """Six images that are always the same."""

    def load(self):
        import torch

        draws = torch.Generator().manual_seed(0)
        images, labels = torch.rand(6, 1, 8, 8, generator=draws), torch.arange(6) % 2
        return RealData(
            train_images=images,
            train_labels=labels,
            test_images=images.clone(),
            test_labels=labels.clone(),
            class_names=("a", "b"),
            mean=(0.5,),
            std=(0.3,),
            source="random images",
        )

    def facts(self):
        return DatasetFacts(source="made up", licence="CC0", num_classes=2, class_names=("a", "b"))


@good("dataset")
class DataInFile:
    """Six images of a file."""

    path: Path = parameter("a text file with a number", default=Path("six"))

    def load(self):
        from ddrank_core import DataError

        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file; write one")
        return Data().load()


@faulty("dataset", "states sound facts")
class DataOfNobody(Data):
    """Data."""

    def facts(self):
        return DatasetFacts(source="", licence="CC0")


@faulty("dataset", "says which files are missing")
class DataMissing(DataInFile):
    """Data."""

    def load(self):
        return json.loads(self.path.read_text())


@faulty("dataset", "loads sound data")
class DataOfInt32(Data):
    """Data."""

    def load(self):
        data = Data().load()
        return attrs.evolve(data, train_labels=data.train_labels.int())


@faulty("dataset", "loads sound data")
class DataOf255(Data):
    """Data."""

    def load(self):
        data = Data().load()
        return attrs.evolve(data, train_images=255 * data.train_images)


@faulty("dataset", "loads the same each time")
class DataNoisy(Data):
    """Data."""

    def load(self):
        data = Data().load()
        return attrs.evolve(data, train_images=data.train_images * (1 - noise()))


@faulty("dataset", "the global random state is left as it was")
class DataSeeds(Data):
    """Data."""

    def load(self):
        import torch

        torch.manual_seed(0)
        return Data().load()


@faulty("dataset", "agrees with its reference")
class DataOther(Data):
    """Data."""

    def load(self):
        data = Data().load()
        return attrs.evolve(data, train_images=data.train_images / 2)


def data_by_hand():
    return Data().load()


# -- methods -----------------------------------------------------------------------------------


@good("method")
class Method:
    """Take the first images of each class."""

    def distill(self, data, architecture, ipc, device, seed, report):
        import torch

        found = [(data.train_labels == label).nonzero()[:ipc, 0] for label in range(len(data.class_names))]
        report(1, 2)
        report(2, 2)
        rows = torch.cat(found)
        return DistilledSet(
            images=(data.train_images[rows] - data.mean[0]) / data.std[0],
            labels=data.train_labels[rows],
            space=ImageSpace(kind="normalised", mean=data.mean, std=data.std),
            num_classes=data.num_classes,
            info={"seed": seed},
        )


def _changed(change: Callable[[DistilledSet, RealData], Any]) -> Callable[..., Any]:
    """Return a `distill` whose result is changed."""

    def distill(self, data, architecture, ipc, device, seed, report):
        return change(Method().distill(data, architecture, ipc, device, seed, report), data)

    return distill


@faulty("method", "gives the images that are asked for")
class MethodInfo(Method):
    """Take."""

    distill = _changed(lambda found, data: attrs.evolve(found, info={"seed": object()}))


@faulty("method", "gives the images that are asked for")
class MethodUnbalanced(Method):
    """Take."""

    distill = _changed(lambda found, data: attrs.evolve(found, labels=found.labels.clone().fill_(1)))


@faulty("method", "device and dtype are kept")
class MethodDouble(Method):
    """Take."""

    distill = _changed(lambda found, data: attrs.evolve(found, images=found.images.double()))


@faulty("method", "the input is left as it was")
class MethodEdits(Method):
    """Take."""

    distill = _changed(lambda found, data: (data.train_images.zero_(), found)[1])


@faulty("method", "the same seed gives the same output")
class MethodNoisy(Method):
    """Take."""

    distill = _changed(lambda found, data: attrs.evolve(found, images=found.images + noise()))


@faulty("method", "the global random state is left as it was")
class MethodDraws(Method):
    """Take."""

    distill = _changed(lambda found, data: (random.random(), found)[1])


@faulty("method", "never looks at the test images")
class MethodCheats(Method):
    """Take."""

    distill = _changed(
        lambda found, data: attrs.evolve(found, images=found.images + data.test_images[0].mean())
    )


@faulty("method", "reports its steps")
class MethodSilent(Method):
    """Take."""

    def distill(self, data, architecture, ipc, device, seed, report):
        return Method().distill(data, architecture, ipc, device, seed, lambda step, steps: None)


@faulty("method", "agrees with its reference")
class MethodOther(Method):
    """Take."""

    distill = _changed(lambda found, data: attrs.evolve(found, images=-found.images))


def method_by_hand(*arguments):
    return Method().distill(*arguments)


# -- sinks -------------------------------------------------------------------------------------


class Lines:
    """Write the names of events to a file, as they come."""

    def __init__(self, event):
        self.file = (event.folder / "events.txt").open("a")
        self.file.write("RunStarted\n")
        self.file.flush()

    def write(self, event):
        self.file.write(f"{type(event).__name__}\n")
        self.file.flush()

    def close(self):
        self.file.close()


@good("sink")
class Sink:
    """Write the names of events."""

    def open(self, event):
        return Lines(event)


@good("sink")
class SinkElsewhere:
    """Write nothing here."""

    def open(self, event):
        return self

    def write(self, event):
        pass

    def close(self):
        pass


def _opening(writer: type) -> Callable[..., Any]:
    """Return an `open` of another writer."""
    return lambda self, event: writer(event)


@faulty("sink", "takes every event of a run")
class SinkFailures(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            if type(event).__name__ == "RunFinished":
                raise KeyError(event.scores["ior_hlr"].reason)
            super().write(event)

    open = _opening(Writer)


@faulty("sink", "passes over events that it does not know")
class SinkKnowsAll(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            known = {
                "RunFailed",
                "RunFinished",
                "EpochFinished",
                "TrialStarted",
                "TrialFinished",
                "TrialFailed",
            }
            if type(event).__name__ not in known:
                raise TypeError(f"what is a {type(event).__name__}?")
            super().write(event)

    open = _opening(Writer)


@faulty("sink", "can be closed at any time")
class SinkClosesLate(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            super().write(event)
            self.last = event

        def close(self):
            super().close()
            del self.last

    open = _opening(Writer)


@faulty("sink", "keeps an event at once")
class SinkBuffers(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            self.file.write(f"{type(event).__name__}\n")

    open = _opening(Writer)


@faulty("sink", "adds to what is there")
class SinkOverwrites(Sink):
    """Write."""

    class Writer(Lines):
        def __init__(self, event):
            (event.folder / "events.txt").unlink(missing_ok=True)
            super().__init__(event)

    open = _opening(Writer)


@faulty("sink", "says what cannot be written")
class SinkTalks(Sink):
    """Write."""

    def open(self, event):
        try:
            return Lines(event)
        except OSError as error:
            raise RuntimeError("no file") from error


@faulty("sink", "the global random state is left as it was")
class SinkDraws(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            random.random()
            super().write(event)

    open = _opening(Writer)


@faulty("sink", "prints nothing")
class SinkPrints(Sink):
    """Write."""

    class Writer(Lines):
        def write(self, event):
            print(event)

    open = _opening(Writer)


REFERENCES: Sequence[tuple[str, str, Callable[..., Any]]] = (
    ("Loss", "LossIgnoresScale", loss_by_hand),
    ("Labels", "LabelsOther", labels_by_hand),
    ("Flip", "FlipNever", flip_by_hand),
    ("Network", "NetworkOther", network_by_hand),
    ("Data", "DataOther", data_by_hand),
    ("Method", "MethodOther", method_by_hand),
)
"""What is good and what is faulty, and the function that both are held to."""
