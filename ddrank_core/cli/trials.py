"""`ddrank trials`: the finished trials, which every run looks up before it trains."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddrank_core.cli.text import clean, table
from ddrank_core.errors import ConfigError

if TYPE_CHECKING:
    from ddrank_core.store.search import Filter, Pruned, Row, TrialSearch

SHORT = 12
"""Characters of a digest in a table."""
WIDEST = 32
"""Characters of a name in a table."""
DAYS = {"m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0}


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a time in the past, given as an age or as a date, as the store writes times."""
    if value is None:
        return None
    age = re.fullmatch(r"(\d{1,6})([mhdw])", value)
    try:
        if age:
            moment = datetime.now(UTC) - timedelta(days=int(age[1]) * DAYS[age[2]])
        else:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        said = f"'{value}' is no age like 30d (m, h, d, w) and no date like 2026-01-31"
        raise click.BadParameter(said, ctx, param) from error
    return moment.isoformat(sep=" ", timespec="seconds")[:19]


def _time_option(*names: str, help: str) -> Callable[..., Any]:
    return click.option(*names, callback=_moment, metavar="WHEN", help=help)


class _ListFirst(click.Group):
    """A group that lists where no other command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


_OF_NAMES = (
    click.option("--run", metavar="NAME", help="Of runs of this name. Names may have * and ?."),
    click.option("--dataset", metavar="NAME", help="On this data set."),
    click.option("--student", metavar="NAME", help="Of this student, as the list shows it."),
    click.option("--arm", metavar="NAME", help="Of this arm."),
    click.option("--phase", type=click.Choice(["search", "final"]), help="That search only, or that count."),
    click.option("--rate", type=float, help="At this learning rate."),
)
_OF_AGE = (
    _time_option("--since", help="Trained since then: 12h, 30d, 2026-01-31. Times are UTC."),
    _time_option("--older-than", help="Trained before then: 12h, 30d, 2026-01-31."),
)
_OF_STATE = (
    click.option("--failed", is_flag=True, help="That could not be trained, instead of finished ones."),
    click.option("--diverged", is_flag=True, help="Whose loss became infinite, or no number."),
)


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group("trials", cls=_ListFirst)
def command() -> None:
    """List, show, export and delete finished trials.

    What a run trains is kept in $DDRANK_CACHE/trials.sqlite, or ~/.cache/ddrank/trials.sqlite, under a digest
    of everything that determines it, so that no run trains it again.
    """


@command.command("list")
@_options(*_OF_NAMES, *_OF_AGE, *_OF_STATE)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with every field.")
def list_(limit: int, as_json: bool, **chosen: Any) -> None:
    """List trials, the newest first.

    \b
        ddrank trials --run quickstart --arm syn-any
        ddrank trials --since 2h --failed

    A test accuracy is shown of trials that a run chose.
    """
    wanted = _filter(**chosen)
    if not _path().exists():
        click.echo(f"no trials yet in {clean(str(_path()))}", err=as_json)
        return
    with _opened() as store:
        rows, count = store.find(wanted, limit), store.count(wanted)
        more = f"{count - len(rows):,} more: --limit {count} shows them" if count > len(rows) else ""
        if as_json:
            for row in rows:
                click.echo(_json(row))
            click.echo(more, err=True, nl=bool(more))
            return
        if rows:
            click.echo(f"{_table(rows, wanted.failed)}\n")
        if more:
            click.echo(more)
        click.echo(_totals(store, wanted, count))


@command.command("show", short_help="Show all that is known of one trial, or compare two.")
@click.argument("digest")
@click.option("--against", metavar="DIGEST", help="Show only what determines this one otherwise.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(digest: str, against: str | None, as_json: bool) -> None:
    """Show all that is known of the trial whose digest starts with DIGEST.

    \b
        ddrank trials show 3f09ac
        ddrank trials show 3f09ac --against 81d2

    The second answers why a trial was trained again that seemed to be there.
    """
    from ddrank_core.cli.trials_shown import as_text, as_values, compared

    with _opened() as store:
        shown = store.show(digest)
        if against is not None:
            different = compared(shown, store.show(against))
            rows = [("DETERMINANT", *different.digests), *different.rows]
            click.echo(_json(different.values()) if as_json else table(rows))
        else:
            click.echo(_json(as_values(shown)) if as_json else as_text(shown), nl=as_json)


@command.command("export", short_help="Write trials to a .csv, .jsonl or .parquet file.")
@click.argument("file", type=click.Path(path_type=Path))
@_options(*_OF_NAMES, *_OF_AGE, *_OF_STATE)
@click.option("--predictions", is_flag=True, help="With the predicted class of every test image; not in CSV.")
def export(file: Path, predictions: bool, **chosen: Any) -> None:
    """Write trials to FILE: .csv, .jsonl, or .parquet, which needs pyarrow.

    \b
        ddrank trials export trials.csv --since 30d
        ddrank trials export trials.parquet --dataset cifar10 --predictions

    Accuracies are fractions, times UTC. A file that exists is replaced.
    """
    from ddrank_core.cli.trials_export import write

    wanted = _filter(**chosen)
    with _opened() as store:
        count = write(store, wanted, file, predictions)
    click.echo(f"{clean(str(file))}: {count:,} {_trials(wanted, count)}")


@command.command("prune", short_help="Delete trials that are no longer wanted.")
@click.option("--run", metavar="NAME", help="Those of runs of this name, which may have * and ?.")
@_time_option("--older-than", help="Those trained before then: 12h, 30d, 2026-01-31.")
@_time_option("--unused-for", "unused_since", help="Those that no run has used for so long: 90d.")
@click.option("--failed", is_flag=True, help="Those that could not be trained.")
@click.option("--diverged", is_flag=True, help="Those whose loss became infinite, or no number.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(everything: bool, dry_run: bool, yes: bool, **chosen: Any) -> None:
    """Delete trials for which all that is given holds; a run that needs one trains it anew.

    \b
        ddrank trials prune --unused-for 90d --dry-run
        ddrank trials prune --run quickstart --diverged

    Filters on age, and --all, also delete what interrupted trainings left. What a run trains at the moment
    stays.
    """
    if everything == any(chosen.values()):
        raise ConfigError("give what to delete, such as --unused-for 90d, or --all, and not both")
    wanted = _filter(**chosen)
    with _opened() as store:
        where = clean(str(store.path))
        due = store.prune(wanted, rehearse=True)
        if dry_run or not (due.trials or due.unfinished):
            click.echo(f"{where}: {_amount(due)} would go")
            return
        if not yes:
            _ask(f"delete {_amount(due)} from {where}?")
        gone = store.prune(wanted)
    kept = "" if gone.shrunk else "; the file keeps its size, since a run is under way or the disk is full"
    click.echo(f"{where}: deleted {_amount(gone)}{kept}")


# -- the store ---------------------------------------------------------------------------------


def _path() -> Path:
    from ddrank_core.store import cache_folder

    return cache_folder() / "trials.sqlite"


@contextmanager
def _opened() -> Iterator[TrialSearch]:
    """Give the store, which is not made where there is none."""
    from ddrank_core.store.search import TrialSearch

    path = _path()
    if not path.exists():
        raise ConfigError(f"{path}: no such file; the first 'ddrank run' makes it")
    store = TrialSearch(path.parent)
    try:
        yield store
    finally:
        store.close()


def _filter(
    older_than: str | None = None,
    rate: float | None = None,
    failed: bool = False,
    diverged: bool = False,
    **more: Any,
) -> Filter:
    from ddrank_core.store.search import Filter

    if failed and diverged:
        raise ConfigError("--failed: a trial that failed has no loss; leave out --diverged")
    return Filter(before=older_than, learning_rate=rate, failed=failed, diverged=diverged, **more)


def _ask(question: str) -> None:
    try:
        if not click.confirm(question):
            raise ConfigError("nothing was deleted")
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise ConfigError("--yes: missing, and nobody is there to answer; nothing was deleted") from None


# -- words -------------------------------------------------------------------------------------


def _table(rows: list[Row], failed: bool) -> str:
    header = ("DIGEST", "RUN", "DATASET", "STUDENT", "ARM", "PHASE", "REPEAT", "RATE")
    of_failed, of_finished = ("ATTEMPTS", "CREATED", "ERROR"), ("VAL %", "TEST %", "SECONDS", "CREATED")
    lines = [(*_names(row), *(_failure(row) if failed else _result(row))) for row in rows]
    return table([(*header, *(of_failed if failed else of_finished)), *lines])


def _names(row: Row) -> Iterator[str]:
    yield row["digest"][:SHORT]
    for name in ("run", "dataset", "student", "arm", "phase", "repeat"):
        yield _short(row[name])
    yield "-" if row["learning_rate"] is None else f"{row['learning_rate']:g}"


def _failure(row: Row) -> tuple[str, ...]:
    return str(row["attempts"]), row["created"], row["error"]


def _result(row: Row) -> tuple[str, ...]:
    validation = "diverged" if row["diverged"] else _percent(row["validation_accuracy"])
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    return validation, _percent(row["test_accuracy"]), seconds, row["created"]


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _short(value: object) -> str:
    text = "-" if value is None else clean(str(value))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _totals(store: TrialSearch, wanted: Filter, count: int) -> str:
    """Say what is meant of what is there, and where that is."""
    from ddrank_core.store.search import Filter

    finished, failed = store.count(Filter()), store.count(Filter(failed=True))
    also = (
        f", {failed:,} failed ('ddrank trials --failed' lists them)" if failed and not wanted.failed else ""
    )
    all_there = failed if wanted.failed else finished
    part = f"{count:,} of " if count != all_there else ""
    size = _size(store.size_bytes())
    return f"{part}{all_there:,} {_trials(wanted, all_there)}{also}; {clean(str(store.path))}, {size}"


def _trials(wanted: Filter, count: int) -> str:
    return f"{'failed ' if wanted.failed else ''}trial{'' if count == 1 else 's'}"


def _amount(pruned: Pruned) -> str:
    trials = f"{pruned.trials:,} trial{'' if pruned.trials == 1 else 's'}"
    files = f" and {pruned.unfinished:,} of interrupted trainings" if pruned.unfinished else ""
    return f"{trials}{files}, {_size(pruned.size_bytes)}"


def _size(count: int) -> str:
    units = [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")]
    return next((f"{count / unit:.1f} {name}" for unit, name in units if count >= unit), f"{count} bytes")


def _json(value: object) -> str:
    import json

    # ASCII only, so that what a terminal shows of a stranger's text cannot steer it.
    return json.dumps(value, allow_nan=False)
