"""MNIST."""

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
    name="MNIST",
    torchvision_class="MNIST",
    digests={
        TRAIN_IMAGES: "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        TRAIN_LABELS: "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        TEST_IMAGES: "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        TEST_LABELS: "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    class_names=tuple(str(digit) for digit in range(10)),
    mean=(0.1307,),
    std=(0.3081,),
    source="MNIST (LeCun, Cortes & Burges), official files by sha256",
    licence="CC BY-SA 3.0",
)


@component
class MNIST:
    """Handwritten digits, 28x28 grey: 60,000 to train, 10,000 to test.

    Reads the four official IDX files, gzip or unpacked, and holds their unpacked content to the
    official sha256, so that a recompressed copy is as good as the original and a changed one is refused.

    Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0).
    `download` fetches it with `torchvision.datasets.MNIST`.

    Mean and standard deviation are the train pixels', as the distillation papers have them
    (VICO-UoE/DatasetCondensation, utils.py).
    """

    root: Path = parameter(
        "the folder with the four files, or with raw/ or MNIST/raw/ that has them; "
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
