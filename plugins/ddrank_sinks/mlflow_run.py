"""A run in MLflow."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ddrank_core import Event, RunFailed, RunFinished, RunStarted, SinkWriter, component, parameter
from ddrank_sinks import values
from ddrank_sinks.files import place
from ddrank_sinks.libraries import check_installed
from ddrank_sinks.numbers import Numbers

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LONGEST = 500
"""How many characters of a parameter's value every MLflow server takes."""

_MOST = 100
"""How many parameters a server takes at once."""


@component
class MLflow:
    """Log a run to MLflow: the config as parameters, accuracies and scores as metrics.

    A run that goes on after it was stopped is one more run there, of the same name; it holds the trials
    that were read back too.
    """

    experiment: str = parameter("the experiment; it is made if it is not there", default="ddrank")
    uri: str | None = parameter(
        "the tracking server or database; MLFLOW_TRACKING_URI if it is not given, or else mlflow.db in the "
        "run folder",
        default=None,
    )

    def check(self) -> None:
        """Refuse a library that is not there."""
        check_installed("mlflow")

    def open(self, event: RunStarted) -> SinkWriter:
        """Begin a run there."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            file = place(None, event, "mlflow.db").resolve()
            # SQLite makes no folders; a run folder is there already, but for one that others made up.
            file.parent.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{file}"
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        known = client.get_experiment_by_name(self.experiment)
        experiment = client.create_experiment(self.experiment) if known is None else known.experiment_id
        run: str = client.create_run(experiment, run_name=event.name).info.run_id
        config = values.flat(values.strict(event.config, in_config=True))
        parameters = [Param(key, str(value)[:_LONGEST]) for key, value in config.items()]
        for start in range(0, len(parameters), _MOST):
            client.log_batch(run, params=parameters[start : start + _MOST])
        return _Writer(client, run)


class _Writer:
    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run
        self._numbers = Numbers()
        self._status = "FAILED"

    def write(self, event: Event) -> None:
        """Log the event's points, from a thread of MLflow's own."""
        from mlflow.entities import Metric

        if isinstance(event, RunFinished):
            self._status = "FINISHED"
        elif isinstance(event, RunFailed):
            self._client.set_tag(self._run, "error", event.error[:_LONGEST])
        milliseconds = int(time.time() * 1000)
        points = [
            Metric(number.name, number.value, milliseconds, number.step) for number in self._numbers.of(event)
        ]
        if points:
            self._client.log_batch(self._run, metrics=points, synchronous=False)

    def close(self) -> None:
        """End the run there: as failed, unless it came to its scores. Waits for what is under way."""
        self._client.set_terminated(self._run, self._status)
