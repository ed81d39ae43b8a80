"""Accuracies that published files record about themselves, measured here again: minutes each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = Path(sys.executable).parent / "ddrank"
CASES = [
    pytest.param(
        "configs/mnist-dc-ipc1.yaml",
        "distilled/mnist-ipc1-dc/res_DC_MNIST_ConvNet_1ipc.pt",
        "mnist",
        ["dataset.root={data}/real/mnist", "hard={{augmentation: {{use: dc}}}}"],
        0.9201,
        0.015,
        id="dc-mnist-ipc1",
    ),
    # On the first 1,017 test images: their sampling error alone is 1.6 points.
    pytest.param(
        "configs/cifar10-camdm-ipc10.yaml",
        "distilled/cifar10-ipc10-camdm/res_CAMDM_CIFAR10_ConvNet_10ipc.pt",
        "cifar10",
        [
            "dataset={{use: arrays, path: '{data}/real/cifar10-subset/cifar10_lossless_subset.npz', "
            "mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.2010]}}",
            "hard={{augmentation: {{use: dsa}}}}",
        ],
        0.4785,
        0.03,
        id="camdm-cifar10-ipc10",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "file", "dataset", "overrides", "recorded", "tolerance"), CASES)
def test_a_published_set_reaches_the_accuracy_that_its_file_records(
    config, file, dataset, overrides, recorded, tolerance, tmp_path
):
    data = os.environ.get("DDRANK_TEST_DATA")
    if not data:
        pytest.skip("DDRANK_TEST_DATA is not set")
    distilled = tmp_path / "distilled.safetensors"
    subprocess.run([LAUNCHER, "import", Path(data) / file, distilled, "--dataset", dataset], check=True)
    changes = [f"distilled.path={distilled}", "scores=[hlr]", *(text.format(data=data) for text in overrides)]
    options = [part for change in changes for part in ("--set", change)]
    subprocess.run(
        [LAUNCHER, "run", ROOT / config, *options, "--out", tmp_path / "run"],
        check=True,
        env={**os.environ, "DDRANK_CACHE": str(tmp_path / "cache")},
    )
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    # With hard labels and the same augmentation, the recipe's arm and the hard-label arm are one training.
    accuracy = record["arms"]["syn-hard"]["accuracy"]
    assert accuracy["n"] == 5
    assert recorded == pytest.approx(accuracy["mean"], abs=tolerance)
