"""The page of one submission, as markup that runs nothing but its copy button."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from ddrank_core.config import SCORES as ALL_SCORES
from ddrank_core.engine.score import summarise
from ddrank_core.leaderboard.rank import SYMBOLS, WEIGHT, sample, undefined
from ddrank_core.leaderboard.site.figures import arms_svg, percent, recipe_accuracy, summary
from ddrank_core.leaderboard.site.markup import link, text
from ddrank_core.leaderboard.site.pictures import read_own
from ddrank_core.leaderboard.site.rows import controls_in_order
from ddrank_core.leaderboard.site.varied import TRACK_WORDS, varied
from ddrank_core.leaderboard.types import Entry, Finding, Submission
from ddrank_core.report.arms import ARMS, SCORES, ScoreWords

LEVEL_WORDS = {"error": "Refused", "warning": "Warning", "info": "Note"}
MAX_RECIPE_BYTES = 64 << 10


@attrs.frozen(kw_only=True)
class Picture:
    """A picture that lies beside the page."""

    name: str
    shows: str | None
    """The file that a finding names; None for the distilled images."""
    drawn: bool = True
    """Of the distilled images: whether they were drawn here from the set, or are as the author shows them."""
    size: tuple[int, int]


def submission_main(entries: Sequence[Entry], pictures: Sequence[Picture]) -> str:
    """Return the page's content; the entries are the tracks and students of one submission."""
    about = entries[0].submission
    parts = [
        _head(about),
        _images(about, pictures),
        *(_result(entry) for entry in entries if entry.variant is None),
        varied(entries),
        _variants([entry for entry in entries if entry.variant is not None]),
        _findings(entries, about, pictures),
        _again(entries),
        _recipe(about),
        _about(entries[0]),
    ]
    return "\n".join(part for part in parts if part)


def _head(about: Submission) -> str:
    links = [f"{label}: {made}" for label, made in _links(about)]
    images = "1 image" if about.ipc == 1 else f"{about.ipc} images"
    return (
        f"<h1>{text(about.method)}</h1>\n"
        f'<p class="lead">{text(about.dataset)}, {images} per class</p>\n'
        f'<p class="by">{text(", ".join(about.authors))}</p>\n'
        f'<p class="links">{" · ".join(links)}</p>'
    )


def _links(about: Submission) -> Iterable[tuple[str, str]]:
    if about.paper:
        yield "Paper", link(about.paper, _short(about.paper))
    if about.code:
        yield "Code", link(about.code, _short(about.code))
    yield "Licence", text(about.licence)


def _short(address: str) -> str:
    return address.partition("://")[2].rstrip("/") or address


def _images(about: Submission, pictures: Sequence[Picture]) -> str:
    found = next((picture for picture in pictures if picture.shows is None), None)
    if found is None:
        shown = "<p>The distilled set is pinned by its digest and lies elsewhere.</p>"
    elif found.drawn:
        shown = _picture(about, found, f"The distilled images of {about.method}, by class")
    else:
        shown = _picture(about, found, f"The picture that came with {about.method}")
        shown += "<p>The author's own picture: it was not drawn from the set.</p>"
    return f"<section><h2>Images</h2>{shown}</section>"


def _picture(about: Submission, picture: Picture, words: str) -> str:
    width, height = picture.size
    folder = about.slug.partition("/")[2]
    return (
        f'<p class="picture"><img src="{text(folder)}/{text(picture.name)}" alt="{text(words)}" '
        f'width="{width}" height="{height}" loading="lazy"></p>'
    )


# -- results -----------------------------------------------------------------------------------


def _result(entry: Entry) -> str:
    title = _title(entry)
    return f"<section><h2>{text(title)}</h2>\n{_measured(entry, title)}</section>"


def _variants(entries: Sequence[Entry]) -> str:
    """Return the arms of variants, folded: there may be many, and their ranks stand above."""
    folded = (
        f"<details><summary>{text(title)}</summary>\n{_measured(entry, title)}</details>"
        for entry, title in ((entry, _title(entry)) for entry in entries)
    )
    return f"<section><h2>Variants, arm by arm</h2>{''.join(folded)}</section>" if entries else ""


def _title(entry: Entry) -> str:
    variant = "" if entry.variant is None else f"; {entry.variant.axis}: {entry.variant.name}"
    return f"{TRACK_WORDS[entry.track]}, {entry.student}, {entry.labels} labels{variant}"


def _measured(entry: Entry, title: str) -> str:
    return (
        f"{_tiles(entry)}\n"
        f"<figure>{arms_svg(entry.measured, f'Accuracy of each arm: {title}')}<figcaption>"
        "Test accuracy of each arm: every repeat, the mean and its 95 % interval.</figcaption></figure>\n"
        f"{_arm_table(entry)}"
    )


def _tiles(entry: Entry) -> str:
    measured, half = recipe_accuracy(entry.measured)
    tiles = list(_scores(entry))
    tiles.append(("Accuracy, measured", percent(measured, half)))
    for claim in entry.submission.claimed:
        where = claim.source if claim.student is None else f"{claim.source}; {claim.student}"
        tiles.append(("Accuracy, claimed", f"{percent(claim.accuracy)} ({where})"))
        if measured is not None:
            gap = f"{100 * (measured - claim.accuracy):+.1f} points".replace("-", "−")
            tiles.append(("Measured less claimed", gap))
    shown = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in tiles)
    return f'<dl class="tiles">{shown}</dl>'


def _scores(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield each score and its value: those with a weight at the table's, whatever the recipe's own is."""
    measured = entry.measured
    for name, stated in ((name, measured.scores[name]) for name in ALL_SCORES if name in measured.scores):
        words = SCORES[name]
        if name not in ("lrs", "ars"):
            yield words.title, _score(words, *stated)
        elif undefined(measured, name) is None:
            found = summarise(name, sample(measured, name, WEIGHT).values)
            yield f"{words.title}, {SYMBOLS[name]} = {WEIGHT}", _score(words, found.mean, found.ci95)
        else:
            yield words.title, _score(words, None, None)


def _score(words: ScoreWords, mean: float | None, half: float | None) -> str:
    if mean is None:
        return "undefined"
    error = "" if half is None else f" ± {words.number(half)}"
    return f"{words.number(mean)}{error} {words.unit}".strip().replace("-", "−")


def _arm_table(entry: Entry) -> str:
    """Return the arms' accuracies, with those of the controls beside them."""
    columns = [(entry.submission.method, entry.measured), *controls_in_order(entry.controls)]
    head = "".join(f'<th scope="col" class="number">{text(name)}</th>' for name, _ in columns)
    rows = []
    for arm, meaning in ARMS.items():
        if arm not in entry.measured.arms:
            continue
        cells = (percent(*summary(measured.arms.get(arm, ()))[:2]) for _, measured in columns)
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{arm}<small>{meaning}</small></th>{numbers}</tr>')
    given = " full-hard is a published accuracy." if entry.measured.full_given else ""
    return (
        f'<p class="note">Accuracy by arm, mean ± 95 % interval; the controls run the same recipe.{given}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Accuracy by arm">'
        '<table><caption class="unseen">Accuracy by arm</caption>'
        f'<thead><tr><th scope="col">Arm</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


# -- the audit, the command, the facts ---------------------------------------------------------


def _findings(entries: Sequence[Entry], about: Submission, pictures: Sequence[Picture]) -> str:
    by_name = {picture.shows: picture for picture in pictures}
    # The tracks of one submission share what was found in its files.
    unique = dict.fromkeys(finding for entry in entries for finding in entry.findings)
    items = []
    for finding in unique:
        shown = by_name.get(finding.picture) if finding.picture else None
        drawn = "" if shown is None else _picture(about, shown, f"Shows the finding: {finding.text}")
        items.append(f"<li>{_badge(finding)} {text(finding.text)}{drawn}</li>")
    listed = f'<ul class="findings">{"".join(items)}</ul>' if items else "<p>Nothing was found.</p>"
    return f"<section><h2>Audit</h2>{listed}</section>"


def _badge(finding: Finding) -> str:
    return (
        f'<span class="badge {text(finding.level)}">{LEVEL_WORDS[finding.level]}</span> '
        f"<strong>{text(finding.check)}</strong>"
    )


def _again(entries: Sequence[Entry]) -> str:
    makes: dict[str, list[str]] = {}
    for entry in entries:
        makes.setdefault(entry.command, []).append(_title(entry))
    blocks = (
        f'<p class="note">{text("; ".join(titles))}</p><div class="code"><pre tabindex="0">'
        f'<code>{text(command)}</code></pre><button type="button" class="copy">Copy</button></div>'
        for command, titles in makes.items()
    )
    return f"<section><h2>Run it again</h2>{''.join(blocks)}</section>"


def _recipe(about: Submission) -> str:
    config = read_own(about.folder, about.recipe, MAX_RECIPE_BYTES)
    words = config[:MAX_RECIPE_BYTES].decode(errors="replace")
    cut = "" if len(config) <= MAX_RECIPE_BYTES else "<p>The rest is left out.</p>"
    shown = f'<div class="code"><pre tabindex="0"><code>{text(words)}</code></pre></div>'
    return f"<section><h2>Config</h2>{shown}{cut}</section>"


def _about(entry: Entry) -> str:
    about = entry.submission
    cost = (
        "not stated" if about.cost is None else f"{about.cost.gpu_hours:g} GPU hours on {about.cost.device}"
    )
    facts = [
        ("Saw of the real data", ", ".join(about.saw) or "nothing"),
        ("Teacher", about.teacher or "none"),
        ("Distillation cost", cost),
        ("Images, labels, teacher", " + ".join(map(size, _sizes(entry)))),
        ("File", f"{size(about.distilled.bytes)}, SHA-256 {about.distilled.sha256}"),
        ("Measured with", f"ddrank {entry.measured.ddrank}, protocol {entry.measured.protocol}"),
        ("On", entry.measured.device),
    ]
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return f'<section><h2>Facts</h2><dl class="facts">{listed}</dl></section>'


def _sizes(entry: Entry) -> tuple[int, int, int]:
    return entry.image_bytes, entry.label_bytes, entry.teacher_bytes


def size(count: int) -> str:
    """Return a number of bytes as a reader sees it.

    >>> size(31400)
    '31.4 kB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
