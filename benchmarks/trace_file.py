"""What a trace of torch.profiler says about a marked stretch: kernels, launches, waits of the host."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

REGION = "the profiled epochs"
"""The name of the `record_function` that marks the stretch; the device must be idle where it begins."""
_WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "cuStreamSynchronize",
    "cuCtxSynchronize",
    "cuEventSynchronize",
)
"""Calls that return when the device has come to some point; cudaMemcpyAsync is no such call."""
_LAUNCHES = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
)
Event = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Found:
    """What was found; without a GPU there are no kernels, launches or waits."""

    seconds: float
    """From the start of the stretch to its end, or to that of the last kernel that it launched."""
    kernel_share: float
    """The share of these in which at least one kernel ran."""
    waits: dict[str, int]
    launches: dict[str, int]
    copies: dict[str, int]
    """Copies between and inside host and device, by kind; one to pageable memory makes the host wait too."""
    slowest: list[tuple[str, float]]
    """Kernels, or operations where there are none, with their share of the seconds, the largest first."""


def read(file: Path) -> Found:
    """Return what a Chrome trace says about its marked stretch.

    Raises:
        SystemExit: if nothing is marked in it.
    """
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event.get("ph") == "X"]
    marked = [event for event in events if event["name"] == REGION and event.get("cat") == "user_annotation"]
    if not marked:
        raise SystemExit("the profiler left no trace of the epochs that it was to record")
    start, end = _span(marked[0])
    calls = [event for event in events if start <= event["ts"] <= end]
    kernels = [event for event in events if event.get("cat") == "kernel" and event["ts"] >= start]
    end = max([end, *(_span(kernel)[1] for kernel in kernels)])
    named = Counter(event["name"] for event in calls if event.get("cat") in ("cuda_runtime", "cuda_driver"))
    copies = Counter(
        event["name"] for event in events if event.get("cat") == "gpu_memcpy" and start <= event["ts"] <= end
    )
    return Found(
        seconds=(end - start) / 1e6,
        kernel_share=covered(map(_span, kernels)) / (end - start),
        waits={name: count for name, count in named.items() if name in _WAITS},
        launches={name: count for name, count in named.items() if name in _LAUNCHES},
        copies=dict(copies),
        slowest=_slowest(kernels or [e for e in calls if e.get("cat") == "cpu_op"], end - start),
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of what intervals cover together.

    >>> covered([(0.0, 2.0), (5.0, 6.0), (1.0, 3.0)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _span(event: Event) -> tuple[float, float]:
    return float(event["ts"]), float(event["ts"]) + float(event.get("dur", 0.0))


def _slowest(events: Sequence[Event], length: float) -> list[tuple[str, float]]:
    spent: Counter[str] = Counter()
    for event in events:
        spent[event["name"]] += event.get("dur", 0.0)
    return [(name, time / length) for name, time in spent.most_common(10)]
