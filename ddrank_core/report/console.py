"""The run's result as plain text: readable without colour, in any encoding."""

from __future__ import annotations

from collections.abc import Sequence

from ddrank_core.report.arms import ARMS, SCORES, in_order, undefined
from ddrank_core.report.record import RunReport
from ddrank_core.results import ArmResult, ScoreResult


def summary(report: RunReport, encoding: str = "utf-8") -> str:
    """Return the scores, the arms and the notes as a text that ends in a newline.

    HLR and IOR are in points of accuracy (percent), the arms in percent. `encoding` is the
    terminal's: what it cannot show is written in ASCII.
    """
    parts = [
        _title(report),
        "",
        *table(
            ("score", "better", "mean ± 95% CI", "n", ""),
            [_score_row(name, report.scores[name]) for name in report.config.scores],
        ),
        "",
        *table(
            ("arm", "accuracy ± std", "n", "learning rate", ""),
            [_arm_row(arm) for arm in in_order(report.arms)],
        ),
    ]
    if report.notes:
        parts += ["", *(f"note: {printable(note)}" for note in report.notes)]
    return encodable("\n".join(parts) + "\n", encoding)


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(8.25), duration(83), duration(7384)
    ('8.2 s', '1 min 23 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _title(report: RunReport) -> str:
    protocol = " ".join(str(report.protocol[key]) for key in ("name", "version") if key in report.protocol)
    reused = sum(trial.reused for trial in report.trials)
    again = f" ({reused} read back)" if reused else ""
    return (
        f"{printable(report.config.name)}: {len(report.trials)} trials{again} in {duration(report.seconds)} "
        f"on {report.device}, {report.precision}, protocol {printable(protocol)}"
    )


def _score_row(name: str, score: ScoreResult) -> tuple[str, ...]:
    words = SCORES[name]
    if score.mean is None:
        reason = printable(score.reason or "no repeat gave a value")
        return words.title, words.better, "undefined", str(score.n), reason
    value = words.number(score.mean)
    if score.ci95 is not None:
        value += f" ± {words.number(score.ci95)}"
    return words.title, words.better, f"{value} {words.unit}".rstrip(), str(score.n), words.meaning


def _arm_row(arm: ArmResult) -> tuple[str, ...]:
    if arm.mean is None:
        value = "undefined"
    else:
        spread = "" if arm.std is None else f" ± {100 * arm.std:.2f}"
        value = f"{100 * arm.mean:.2f}{spread} %"
    return arm.name, value, str(arm.n), _rates(arm), _arm_words(arm)


def _rates(arm: ArmResult) -> str:
    rates = sorted({rate for rate in arm.learning_rates if rate is not None})
    if len(rates) > 3:
        return f"{rates[0]:g} to {rates[-1]:g}"
    return ", ".join(f"{rate:g}" for rate in rates) or "-"


def _arm_words(arm: ArmResult) -> str:
    words = [ARMS.get(arm.name, "")]
    if arm.source is not None:
        words.append(f"given, from {arm.source}")
    if arm.same_as is not None:
        words.append(f"the trials of {arm.same_as}")
    if arm.mean is None:
        words.append(undefined(arm))
    elif arm.diverged:
        words.append(f"{arm.diverged} diverged and left out")
    return printable("; ".join(word for word in words if word))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; columns are as wide as their widest cell, the last one is free."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]
        ).rstrip()
        for line in lines
    ]


def printable(text: str) -> str:
    """Return a text without what could move a terminal's cursor."""
    # Names and sources come from files of others; an escape sequence in one could rewrite the screen.
    return "".join(character if character.isprintable() else " " for character in text)


def encodable(text: str, encoding: str) -> str:
    """Return a text that the terminal's encoding can show."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace(" ± ", " +/- ").encode(encoding, errors="replace").decode(encoding)
    return text
