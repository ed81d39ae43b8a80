"""CIFAR-100."""

from __future__ import annotations

from pathlib import Path

from ddrank_core import DatasetFacts, RealData, component, parameter
from ddrank_datasets._cifar import Family, facts_of, load_cifar

FAMILY = Family(
    name="CIFAR-100",
    torchvision_class="CIFAR100",
    folder="cifar-100-python",
    num_classes=100,
    mean=(0.5071, 0.4866, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    statistics=("the train pixels' (VICO-UoE/DatasetCondensation, utils.py)"),
)


@component
class CIFAR100:
    """Colour photographs, 32x32, of 100 fine classes: 50,000 to train, 10,000 to test.

    Reads the official "python version" through `torchvision.datasets.CIFAR100`, which compares every file
    with its official md5 before it unpickles it.

    Images are normalised with the mean and standard deviation that the distillation papers use
    (VICO-UoE/DatasetCondensation, utils.py), since published sets live in that space.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". The authors state no
    licence and ask to be cited.
    """

    root: Path = parameter(
        "the folder that has cifar-100-python/; "
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
