"""Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

from ddrank_core import DatasetFacts, RealData, component, parameter
from ddrank_datasets._mnist_family import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Family,
    facts_of,
    load_family,
)

FAMILY = Family(
    name="Fashion-MNIST",
    torchvision_class="FashionMNIST",
    # md5 is what is published of the unpacked files; it is here against mix-ups, not against attackers.
    digests={
        TRAIN_IMAGES: "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a",
        TRAIN_LABELS: "md5:9018921c3c673c538a1fc5bad174d6f9",
        TEST_IMAGES: "md5:8181f5470baa50b63fa0f6fddb340f0a",
        TEST_LABELS: "md5:15d484375f8d13e6eb1aabb0c3f46965",
    },
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mean=(0.2861,),
    std=(0.3530,),
    source="Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), official files by md5",
    licence="MIT",
)


@component
class FashionMNIST:
    """Clothes and shoes, 28x28 grey: 60,000 to train, 10,000 to test.

    Reads the four official IDX files, gzip or unpacked, and holds their unpacked content to the
    official md5; MNIST's files, which have the same names, are refused.

    Source: Xiao, Rasul & Vollgraf 2017, zalandoresearch/fashion-mnist (MIT licence). `download` fetches it
    with `torchvision.datasets.FashionMNIST`.

    Mean and standard deviation are the train pixels', as the distillation papers have them
    (VICO-UoE/DatasetCondensation, utils.py).
    """

    root: Path = parameter(
        "the folder with the four files, or with raw/ or FashionMNIST/raw/ that has them; "
        "the default is relative to the working directory, a path in a config to the config's folder",
        default=Path("datasets"),
    )
    download: bool = parameter("fetch the files into root if they are not there", default=False)

    def facts(self) -> DatasetFacts:
        """Return what is known without reading the files."""
        return facts_of(FAMILY, self.root)

    def load(self) -> RealData:
        """Return images uint8 [N, 1, 28, 28].

        Raises:
            DataError: naming the missing or wrong file and what to do.
        """
        return load_family(FAMILY, self.root, self.download)
