"""Sinks: what keeps the events of a run while it goes on, chosen with `ddrank run --sink NAME`."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_sinks() -> list[ComponentSpec]:
    return [
        ComponentSpec("csv", "ddrank_sinks.csv_file:CSV", "A table, with a row for each trial as it ends"),
        ComponentSpec("jsonl", "ddrank_sinks.jsonl:JSONLines", "Every event as a line of JSON"),
        ComponentSpec(
            "tensorboard",
            "ddrank_sinks.tensorboard_events:TensorBoard",
            "TensorBoard: accuracies and scores as curves",
        ),
        ComponentSpec("wandb", "ddrank_sinks.wandb_run:WeightsAndBiases", "Weights & Biases"),
        ComponentSpec("mlflow", "ddrank_sinks.mlflow_run:MLflow", "MLflow: a server, or a local file"),
    ]
