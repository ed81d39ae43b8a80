"""The launcher `ddrank`: finds the command, runs it, and turns every error into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ddrank_core import __version__
from ddrank_core.cli.lazy import LazyGroup
from ddrank_core.cli.text import clean
from ddrank_core.errors import DDRankError, nearest

COMMANDS = {
    "run": ("ddrank_core.cli.run", "Train and score a distilled set."),
    "check": ("ddrank_core.cli.check", "Validate a config without training."),
    "plan": ("ddrank_core.cli.plan", "Say what a run will train, how long it takes, and what memory."),
    "bench": ("ddrank_core.cli.bench", "Measure how fast trials train here."),
    "import": ("ddrank_core.cli.import_", "Convert what a method published into a distilled set."),
    "convert": ("ddrank_core.cli.convert", "Turn a config of ddranking into one of this project."),
    "distill": ("ddrank_core.cli.distill", "Make a distilled set with a distillation method."),
    "teacher": ("ddrank_core.cli.teacher", "Train networks that give soft labels."),
    "data": ("ddrank_core.cli.data", "List real data sets, and decode their pictures beforehand."),
    "trials": ("ddrank_core.cli.trials", "List, show, export and delete finished trials."),
    "rank": ("ddrank_core.cli.rank", "Rank submissions: who is better, and where that is not known."),
    "leaderboard": ("ddrank_core.cli.leaderboard", "Write the submissions as a static site, and look at it."),
    "list": ("ddrank_core.cli.list_", "List components by kind."),
    "show": ("ddrank_core.cli.show", "Show a component: parameters, documentation, origin."),
    "plugins": ("ddrank_core.cli.plugins_", "List installed plugins without importing them."),
    "new-plugin": ("ddrank_core.cli.new_plugin", "Write a package with a component of your own."),
    "submission": ("ddrank_core.cli.submission", "Make, check and evaluate a submission to the leaderboard."),
    "schema": ("ddrank_core.cli.schema", "Print the JSON Schema of a config, for editors."),
}
"""Command -> the module whose `command` it is, and its line in `ddrank --help`."""

INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGINT and 128 + SIGPIPE, as a shell reports them."""


@click.command(
    "ddrank",
    cls=LazyGroup,
    table=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--only",
    multiple=True,
    metavar="DIST",
    help="Use no plugins but those of the distribution DIST and ddrank's own.  [env var: DDRANK_PLUGINS]",
)
@click.option("--without", multiple=True, metavar="DIST", help="Use no plugins of the distribution DIST.")
@click.option(
    "--plugin",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use the hooks and components in FILE, a Python file of your own.",
)
@click.pass_context
def launcher(
    ctx: click.Context, only: tuple[str, ...], without: tuple[str, ...], files: tuple[Path, ...]
) -> None:
    """Score dataset distillation: what the images, the soft labels and the augmentation contribute.

    `ddrank COMMAND --help` explains a command. The options about plugins stand before the command, and can
    be given more than once.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    elif only or without or files:
        # Costs imports that a start without these options does not need.
        from ddrank_core.plugin_choice import Choice, using

        ctx.with_resource(using(Choice(only, without, files)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the launcher and return its exit code: 0 done, 2 bad input, 1 a run that failed.

    An exception that nobody raised on purpose is a bug and keeps its traceback.
    """
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        # A closed pipe shows when the buffer is written, which would otherwise be after this function.
        sys.stdout.flush()
        return code
    except DDRankError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _fail(_usage(error), 2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as `head` does: nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    # Not `launcher.main`: it would call an EOFError, which a truncated file raises, an interruption.
    try:
        with launcher.make_context("ddrank", arguments) as context:
            launcher.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {clean(message)}", err=True)
    return code


def _usage(error: click.ClickException) -> str:
    """Return one of click's own errors in the words of this project's."""
    # By name, since click 8.1 has no such class; its message is the whole help.
    if type(error).__name__ == "NoArgsIsHelpError":
        message = "missing command"
    elif isinstance(error, click.NoSuchOption) and _is_launchers(error):
        message = f"{error.option_name} stands before the command: ddrank {error.option_name} ... COMMAND"
    elif isinstance(error, click.NoSuchOption):
        message = f"no such option {error.option_name}{nearest(error.option_name, error.possibilities or [])}"
    else:
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if context else message


def _is_launchers(error: click.NoSuchOption) -> bool:
    """Return whether an option that a command does not have is one of the launcher's own."""
    return any(error.option_name in option.opts for option in launcher.params)


if __name__ == "__main__":
    sys.exit(main())
