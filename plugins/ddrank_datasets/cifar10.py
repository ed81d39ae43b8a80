"""CIFAR-10."""

from __future__ import annotations

from pathlib import Path

from ddrank_core import DatasetFacts, RealData, component, parameter
from ddrank_datasets._cifar import Family, facts_of, load_cifar

FAMILY = Family(
    name="CIFAR-10",
    torchvision_class="CIFAR10",
    folder="cifar-10-batches-py",
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    statistics=(
        "the DC family's (VICO-UoE/DatasetCondensation, utils.py), whose std is an average over images; "
        "the pixels' is 0.2470, 0.2435, 0.2616"
    ),
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
)


@component
class CIFAR10:
    """Colour photographs, 32x32, of 10 classes: 50,000 to train, 10,000 to test.

    Reads the official "python version" through `torchvision.datasets.CIFAR10`, which compares every file
    with its official md5 before it unpickles it.

    Images are normalised with the mean and standard deviation that the distillation papers use
    (VICO-UoE/DatasetCondensation, utils.py), since published sets live in that space. Its standard deviation
    is an average of each image's own; the pixels' is (0.2470, 0.2435, 0.2616).

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". The authors state no
    licence and ask to be cited.
    """

    root: Path = parameter(
        "the folder that has cifar-10-batches-py/; "
        "the default is relative to the working directory, a path in a config to the config's folder",
        default=Path("datasets"),
    )
    download: bool = parameter("fetch the archive into root if the files are not there", default=False)

    def facts(self) -> DatasetFacts:
        """Return what is known without reading the files."""
        return facts_of(FAMILY, self.root)

    def load(self) -> RealData:
        """Return images uint8 [N, 3, 32, 32].

        Raises:
            DataError: naming the missing or damaged file and what to do.
        """
        return load_cifar(FAMILY, self.root, self.download)
