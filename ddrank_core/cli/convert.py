"""`ddrank convert`: turn a config of ddranking into one of this project."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command("convert")
@click.argument("old", type=_FILE)
@click.option("-o", "--output", type=_FILE, help="The config to write.  [default: to standard output]")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(old: Path, output: Path | None, force: bool) -> None:
    """Turn OLD, a YAML or JSON config of ddranking, into a config of this project.

    For each of its keys one line says whether it is kept, had no effect, or was wrong, and what is done.
    """
    from ddrank_core.cli.problems import warn
    from ddrank_core.cli.text import table
    from ddrank_core.compat.convert import convert, report
    from ddrank_core.registry import default_registry

    registry = default_registry()
    warn(registry.problems)
    if output is not None:
        _check_output(output, force)
    text, found = convert(old, Path() if output is None else output.parent, registry)
    click.echo(table(report(found)), err=output is None)
    if output is None:
        click.echo(text, nl=False)
        return
    _write(output, text)
    click.echo(f"\nwrote {output}; next, ddrank check {output}")


def _check_output(output: Path, force: bool) -> None:
    from ddrank_core.errors import ConfigError

    if not output.parent.is_dir():
        raise ConfigError(f"{output}: no such folder: {output.parent}")
    if output.is_dir():
        raise ConfigError(f"{output}: is a folder; name a file")
    if output.exists() and not force:
        raise ConfigError(f"{output}: exists; give --force to replace it, or another -o")


def _write(output: Path, text: str) -> None:
    from ddrank_core.errors import ConfigError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}") from error
