"""Options that several commands share."""

from __future__ import annotations

import click

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Override a field: recipe.epochs=50."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:0, cuda:1, ..."
)
