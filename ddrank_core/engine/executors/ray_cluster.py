"""The Ray cluster that a run's workers live on: reached or started, counted, and left."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Collection
from typing import Any, Literal

import attrs

from ddrank_core.errors import ConfigError, DeviceError, one_line

Device = Literal["auto", "cpu", "cuda"]


@attrs.frozen
class Share:
    """What one worker takes of a machine."""

    gpus: float
    cpus: float = 1.0

    def __str__(self) -> str:
        cores = f"{self.cpus:g} CPU"
        return f"{self.gpus:g} GPU and {cores}" if self.gpus else cores

    def fit(self, resources: dict[str, float]) -> int:
        """Return how many go into a machine's resources."""
        # Ray counts in ten-thousandths; what is left of 1 - 2 * 0.3333 must not count as another share.
        cores = int(resources.get("CPU", 0.0) / self.cpus + 1e-6)
        return min(cores, int(resources.get("GPU", 0.0) / self.gpus + 1e-6)) if self.gpus else cores


class Cluster:
    """A connection to a cluster. `address` is what `ray.init` takes, but for a client's `ray://`.

    None takes the cluster of the environment variable RAY_ADDRESS, else the one that `ray start` has started
    on this machine, else starts one of this machine alone, which ends with the run. `auto` never starts one,
    `local` always does. HOST:PORT is a cluster that this machine belongs to.

    Raises:
        DDRankError: one line, if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str | None) -> None:
        if address is not None and address.startswith("ray://"):
            raise ConfigError(
                f"--address {address}: Ray's client is not supported: a run's data would go through it; "
                "start the run on a machine of the cluster with --address auto (or with 'ray job submit')"
            )
        self.ray = _ray()
        # In a process that is connected already, the connection is somebody else's to end.
        self._is_mine = not self.ray.is_initialized()
        if self._is_mine:
            self._connect(address)

    def _connect(self, address: str | None) -> None:
        # Of a cluster that is started for a run nobody is told; who wants to, sets it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(
                address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
            )
            # Ray's own would end the process without a word about what is kept.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        except Exception as error:  # Ray raises what it likes: ConnectionError, RuntimeError, ValueError
            advice = "see 'ray status'" if address is None else "see 'ray status', or leave it out"
            where = "--executor ray" if address is None else f"--address {address}"
            raise DeviceError(f"{where}: no Ray cluster: {one_line(error)}; {advice}") from error

    def share(self, device: Device, gpus_per_worker: float) -> Share:
        """Return what a worker takes: a share of a GPU where the cluster has any, else a processor core.

        Raises:
            DeviceError: one line, if no machine can ever hold one.
        """
        on_gpu = device == "cuda" or (device == "auto" and self._has("GPU"))
        share = Share(gpus_per_worker if on_gpu else 0.0)
        if self.room(share) == 0 and self.may_hold(share) == 0:
            total = self.ray.cluster_resources()
            there = ", ".join(f"{total.get(name, 0.0):g} {name}" for name in ("GPU", "CPU"))
            raise DeviceError(
                f"--executor ray: no machine of the cluster has {share} for a worker (all have {there}); "
                "add machines, or ask for less with --device"
            )
        return share

    def room(self, share: Share, without: Collection[str] = ()) -> int:
        """Return how many workers the machines hold that are up, whatever else they are doing."""
        return sum(share.fit(node["Resources"]) for node in self._nodes() if node["NodeID"] not in without)

    def vacancies(self) -> str:
        """Return in words what of the cluster nobody uses."""
        free, machines = self.ray.available_resources(), len(self._nodes())
        there = " and ".join(f"{free.get(name, 0.0):g} {name}" for name in ("GPU", "CPU"))
        return f"of the cluster's {machines} machine{'s' if machines > 1 else ''} {there} are free"

    def close(self) -> None:
        """Leave the cluster; one that was started by this connection ends."""
        if self._is_mine:
            self.ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _has(self, resource: str) -> bool:
        return bool(self.ray.cluster_resources().get(resource) or _at_most().get(resource))

    def may_hold(self, share: Share) -> int:
        """Return how many workers an autoscaler may bring the cluster to; 0 where there is none."""
        return share.fit({name: float(most) for name, most in _at_most().items()})


def _at_most() -> dict[str, int]:
    """Return what a cluster's autoscaler may bring it to; nothing, where there is none."""
    # Ray has no public name for it, and a cluster that starts from no GPU at all must not be refused.
    from ray._private.state import state

    return state.get_max_resources_from_cluster_config() or {}


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray, which is not installed: pip install 'ddrank[ray]'"
        ) from error
    return ray
