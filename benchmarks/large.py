"""Measure the memory and the time of large cases: steps with and without micro-batches, and streamed passes.

    python benchmarks/large.py                  # on the CPU: some minutes on one core
    python benchmarks/large.py --device cuda    # on a GPU, with larger batches

Images are noise: the work on one does not depend on what is in it. Every row is measured in a process of
its own, one after another. Memory is what the measured part takes on top of what was there before: on a CPU
the process' own (without what is mapped from files), on a GPU what torch's allocator handed out. Prints
the tables of large.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddrank_core.engine.device import describe, deterministic, keep_freed_memory, resolve
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.plan import Training
from ddrank_core.engine.rehearse import counting
from ddrank_core.engine.train import Setting, build, evaluation_batch, predict, train
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer

MIB = 2**20
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

NETWORKS: dict[str, dict[str, Any]] = {
    "ConvNet-3, 32 pixels, 10 classes": {
        "network": {"use": "convnet", "depth": 3, "width": 128},
        "side": 32,
        "classes": 10,
        "batches": {"cpu": [(256, None), (256, 64), (256, 16)], "cuda": [(500, None), (500, 125)]},
    },
    "ResNet-18, 64 pixels, 200 classes": {
        "network": {"use": "resnet", "depth": 18, "norm": "batch"},
        "side": 64,
        "classes": 200,
        "batches": {"cpu": [(16, None), (16, 8), (16, 4)], "cuda": [(256, None), (256, 64), (256, 16)]},
    },
    "ResNet-18, 224 pixels, 1,000 classes": {
        "network": {"use": "torchvision/resnet18"},
        "side": 224,
        "classes": 1000,
        "batches": {"cpu": [(16, None), (16, 8), (16, 4)], "cuda": [(256, None), (256, 64), (256, 16)]},
    },
}
# A small network, so that the pass is about the images and not about it.
PASS = {"network": {"use": "convnet", "depth": 1, "width": 4}, "side": 224, "classes": 1000}

BYTES_PER_ACTIVATION = {"cpu": 12, "cuda": 16}
"""What the engine reckons with: `count_workers` of engine/workers.py, `Cohorts._fit` of engine/cohorts.py."""


# -- in a process of its own -----------------------------------------------------------------------------


class Memory:
    """The bytes in use at the most, on top of those at the start."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            self._start = self._most = anonymous_bytes()

    def look(self, *_: object) -> None:
        """Take note of what is in use now."""
        if self._device.type != "cuda":
            self._most = max(self._most, anonymous_bytes())

    def peak(self) -> int:
        """Return the bytes on top at the most, of all looks or, on a GPU, of any moment."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._start
        return self._most - self._start


def anonymous_bytes() -> int:
    """Return the process' resident memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def watched(network: torch.nn.Module, memory: Memory) -> None:
    """Look at the memory whenever an innermost module has done its part, forward and backward."""
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(memory.look)
    for weight in network.parameters():
        weight.register_hook(memory.look)


def setting_of(device: torch.device) -> Setting:
    space = normaliser(MEAN, STD, device)
    return Setting(device=device, precision="fp32", space=space, teachers=lambda images: ())


def network_of(case: dict[str, Any], device: torch.device) -> torch.nn.Module:
    chosen = Structurer(default_registry(), Path()).chosen("architecture", case["network"])
    shape = (3, case["side"], case["side"])
    return build(chosen.component, case["classes"], shape, 0).to(device)


def activations_of(network: torch.nn.Module, side: int, device: torch.device) -> int:
    """Return the activations of one image as a run's rehearsal counts them."""
    network.eval()
    with torch.no_grad(), counting(network) as sizes:
        network(torch.zeros(1, 3, side, side, device=device))
    return sum(sizes)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - clock


def measure_step(case: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Train on one batch of images that are on the device: memory, and seconds per step."""
    network, count = network_of(case, device), case["batch"]
    per_image = activations_of(network, case["side"], device)
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, case["side"], case["side"], generator=draws).to(device)
    data = ImageSet(images=images, labels=torch.arange(count, device=device) % case["classes"])
    training, setting = training_of(case), setting_of(device)

    def epochs() -> None:
        assert train(network, data, training, 1e-4, 0, setting, tick)

    seconds: list[float] = []
    clock = [time.perf_counter()]

    def tick(_epoch: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        seconds.append(now - clock[0])
        clock[0] = now

    memory = Memory(device)
    if device.type != "cuda":
        watched(network, memory)
    epochs()
    images_at_once = case["micro_batch"] or count
    return {
        "peak": memory.peak(),
        # The first step is warm-up.
        "seconds": statistics.median(seconds[1:]),
        "estimate": per_image * images_at_once * BYTES_PER_ACTIVATION[device.type],
        "weights": weights * 4,
    }


def training_of(case: dict[str, Any]) -> Training:
    values = {
        "source": "distilled",
        "labels": "hard",
        "loss": "ce",
        "augmentation": [],
        "optimizer": "sgd",
        "schedule": "constant",
        "epochs": 1 + case["steps"],
        "batch_size": case["batch"],
        "micro_batch": case["micro_batch"],
    }
    training: Training = Structurer(default_registry(), Path()).structure(values, Training, "large.py")
    return training


def measure_pass(case: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Ask a network about a mapped set, or about the same images as float32 tensor in memory."""
    network, side = network_of(case, device), case["side"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        write(path, case["images"], side)
        memory = Memory(device)
        network.register_forward_hook(memory.look)
        mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
        setting, labels = setting_of(device), torch.zeros(case["images"], dtype=torch.int64, device=device)
        data = ImageSet(images=mapped, labels=labels, space=setting.space)
        if not case["streamed"]:
            data = ImageSet(images=data.batch(slice(None)), labels=labels)
        seconds = timed(device, lambda: predict(network, data, setting))
        return {"peak": memory.peak(), "seconds": seconds, "batch": evaluation_batch(data, device)}


def write(path: Path, count: int, side: int) -> None:
    """Write noise, uint8 [count, 3, side, side], without holding it all."""
    array = np.lib.format.open_memmap(path, "w+", "uint8", (count, 3, side, side))
    draws = np.random.default_rng(0)
    for start in range(0, count, 64):
        part = array[start : start + 64]
        part[:] = draws.integers(0, 256, part.shape, dtype="uint8")
    array.flush()


# -- all of them -----------------------------------------------------------------------------------------


def measured(kind: str, case: dict[str, Any], device: str) -> dict[str, Any]:
    """Return what a fresh process measures of a case."""
    command = [sys.executable, __file__, "--device", device, "--one", json.dumps([kind, case])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": last[:100]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def print_steps(device: str, steps: int) -> None:
    print("| network | batch | micro-batch | memory, MiB | the engine reckons with, MiB | seconds per step |")
    print("|---|---|---|---|---|---|")
    for name, case in NETWORKS.items():
        for batch, micro in case["batches"][device.partition(":")[0]]:
            about = {**case, "batch": batch, "micro_batch": micro, "steps": steps}
            row = measured("step", about, device)
            shown = f"| {name} | {batch} | {micro or 'none'} |"
            if "failed" in row:
                print(f"{shown} {row['failed']} | | |", flush=True)
                continue
            sizes = f"{row['peak'] / MIB:,.0f} | {row['estimate'] / MIB:,.0f}"
            print(f"{shown} {sizes} | {row['seconds']:.2f} |", flush=True)


def print_passes(device: str, counts: list[int]) -> None:
    print("| images | as uint8, MiB | images at once | memory streamed, MiB | s | memory at once, MiB | s |")
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        rows = [measured("pass", {**PASS, "images": count, "streamed": s}, device) for s in (True, False)]
        bytes_uint8 = count * 3 * PASS["side"] ** 2
        cells = [
            f"{row['peak'] / MIB:,.0f} | {row['seconds']:.1f}" if "peak" in row else f"{row['failed']} |"
            for row in rows
        ]
        batch = rows[0].get("batch", "?")
        print(f"| {count:,} | {bytes_uint8 / MIB:,.0f} | {batch} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each row, after one of warm-up")
    parser.add_argument("--images", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = resolve(asked.device)
    keep_freed_memory(device)
    if asked.one is not None:
        kind, case = json.loads(asked.one)
        with deterministic(device):
            print(json.dumps({"step": measure_step, "pass": measure_pass}[kind](case, device)))
        return
    print(f"torch {torch.__version__}, {describe(device)}\n")
    print_steps(str(device), asked.steps)
    print()
    print_passes(str(device), asked.images)


if __name__ == "__main__":
    main()
