"""`ddrank schema`: what an editor needs to complete and check configs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("schema")
@click.argument("config", type=click.Choice(["run", "distill", "teacher"]), default="run")
@click.option("--output", type=click.Path(path_type=Path), help="Write it into this file instead.")
def command(config: str, output: Path | None) -> None:
    """Print the JSON Schema of a CONFIG for `ddrank run` (the default), `distill` or `teacher train`.

    It is made from the components that are installed, those of plugins too. Editors with a YAML language
    server complete and check by it a file that starts with a comment that names the schema's file:

    \b
        ddrank schema --output run.schema.json
        # yaml-language-server: $schema=run.schema.json
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.errors import ConfigError
    from ddrank_core.registry import default_registry
    from ddrank_core.schema import schema_of, text_of

    registry = default_registry()
    schema, problems = schema_of(config, registry)
    warn((*registry.problems, *problems))
    text = text_of(schema)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {output}: cannot be written: {error.strerror}") from error
