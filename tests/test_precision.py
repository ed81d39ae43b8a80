"""TF32 is on where it is asked for, in forward and backward passes alone."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest
import torch
from test_cohort import CLASSES, CPU, SMALL_CONVNET, chosen, images_of, networks_of, setting_of, training_of
from tiny_case import prepared_case

from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.device import deterministic, tf32
from ddrank_core.errors import ConfigError
from ddrank_core.types import Augmented

OFF, ON = (False, False), (True, True)


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def as_before():
    before = flags()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("before", [OFF, ON, (False, True)])
def test_tf32_is_allowed_and_put_back(before):
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    with tf32(True):
        assert ON == flags()
    assert before == flags()
    with tf32(False):
        assert before == flags()
    with pytest.raises(ZeroDivisionError), tf32(True):
        raise ZeroDivisionError
    assert before == flags()


def test_a_run_on_a_gpu_turns_tf32_off_whatever_the_environment_says():
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = ON
    with deterministic(torch.device("cuda:0")):
        assert OFF == flags()
        with tf32(True):
            assert ON == flags()
        assert OFF == flags()
    assert ON == flags()


def test_torch_warns_of_nothing():
    script = (
        "import warnings; warnings.simplefilter('error')\n"
        "import torch\n"
        "from ddrank_core.engine.device import deterministic, tf32\n"
        "with deterministic(torch.device('cuda:0')), tf32(True): pass\n"
        "assert torch.get_float32_matmul_precision() == 'highest'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_holds_for_forward_and_backward_passes_alone(precision):
    """Not for augmentations, whose coordinates it would blur, for teachers, and for what follows an epoch."""
    seen = {}

    class Augmentation:
        def __call__(self, images, randomness):
            seen["augmentation"] = flags()
            return Augmented(images)

    def teachers(images):
        seen["teacher"] = flags()
        return (images.flatten(1)[:, :CLASSES],)

    class Seeing(torch.autograd.Function):
        @staticmethod
        def forward(features):
            seen["forward"] = flags()
            return features.clone()

        @staticmethod
        def setup_context(context, inputs, output):
            pass

        @staticmethod
        def backward(context, gradient):
            seen["backward"] = flags()
            return gradient

        @staticmethod
        def vmap(info, dimensions, features):
            return Seeing.apply(features), dimensions[0]

    class Loss:
        def __call__(self, logits, targets):
            return chosen("loss", "kl").component(Seeing.apply(logits), targets)

    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = OFF
    training = training_of(labels="teacher", loss="kl", epochs=1)
    training = attrs.evolve(
        training,
        loss=attrs.evolve(training.loss, component=Loss()),
        augmentation=(attrs.evolve(training.augmentation[0], component=Augmentation()),),
    )
    setting = attrs.evolve(setting_of(teachers), precision=precision)
    networks = [network.float() for network in networks_of(SMALL_CONVNET)]
    images = images_of(soft=False)
    images = attrs.evolve(images, images=images.images.float())
    train_cohort(
        networks,
        [images] * 3,
        training,
        (0.01,) * 3,
        (5, 5, 8),
        setting,
        lambda epoch: seen.update(after=flags()),
    )
    inside = ON if precision == "tf32" else OFF
    expected = {"augmentation": OFF, "teacher": OFF, "forward": inside, "backward": inside, "after": OFF}
    assert expected == seen


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_than_fp32_need_a_gpu(tmp_path, precision):
    with pytest.raises(ConfigError) as caught:
        prepared_case(tmp_path, precision=precision)
    assert f"precision: {precision} needs a CUDA device, and this run is on {CPU}; use fp32" in str(
        caught.value
    )
