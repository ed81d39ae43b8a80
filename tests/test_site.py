"""The leaderboard's pages: what is written, and that nothing of a stranger's is taken for markup."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import yaml
from made_up_entries import entries, entry, variants
from PIL import Image
from ranked_case import record, submit
from scipy import stats

from ddrank_core.cli.main import main
from ddrank_core.data import distilled as distilled_file
from ddrank_core.errors import DataError
from ddrank_core.leaderboard.rank import tables
from ddrank_core.leaderboard.site import build as building
from ddrank_core.leaderboard.site.build import build, index
from ddrank_core.leaderboard.site.drawn import images_png
from ddrank_core.leaderboard.site.figures import percent, recipe_accuracy, summary
from ddrank_core.leaderboard.site.markup import asset, embedded, link, text
from ddrank_core.leaderboard.site.rows import board, in_order
from ddrank_core.leaderboard.types import DistilledFile, Finding, Variant
from ddrank_core.types import DistilledSet, ImageSpace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a submission's folder with a config and nothing else."""
    place = tmp_path / "submission"
    place.mkdir()
    (place / "run.yaml").write_text("dataset: digits  # <script>\n")
    return place


def files(site: Path) -> dict[str, bytes]:
    found = (path for path in site.rglob("*") if path.is_file())
    return {path.relative_to(site).as_posix(): path.read_bytes() for path in found}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.words.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, of in self.found if name == tag and (value := of.get(attribute)) is not None]


# -- text of strangers -------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--<script>",
    "]]><b>",
    "\u2028alert(1)\u2029",
    "\x00<b\x00>",
    "\u202egnp.exe",
    "&lt;script&gt;",
    '=HYPERLINK("http://example.org")',
)


@pytest.mark.parametrize("words", HOSTILE)
def test_text_of_strangers_stays_text(words):
    page = Elements(f'<p title="{text(words)}">{text(words)}</p>')
    shown = "".join(c if c.isprintable() else "\ufffd" for c in words)
    assert [("p", {"title": shown})] == page.found
    assert shown == "".join(page.words)


@pytest.mark.parametrize("words", HOSTILE)
def test_json_in_a_page_ends_no_script_and_says_the_same(words):
    made = embedded({"name": words})
    assert not re.search("[<>&\u2028\u2029\x00]", made)
    assert {"name": words} == json.loads(made)


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "//example.org",
        "http://",
        "http://[",
        "file:///etc/passwd",
    ],
)
def test_only_web_addresses_become_links(address):
    assert Elements(link(address, "paper")).found == []


def test_a_web_address_becomes_a_link_that_tells_its_page_nothing():
    (found,) = Elements(link('https://example.org/?a=1&b="2"', "paper")).found
    wanted = {"href": 'https://example.org/?a=1&b="2"', "rel": "noopener noreferrer nofollow"}
    assert ("a", wanted) == found


@pytest.mark.parametrize("words", HOSTILE)
def test_a_hostile_submission_adds_no_element_to_any_page(tmp_path, folder, words):
    plain = entry(1, folder, findings=(Finding(level="info", check="shape", text="fine"),))
    about = plain.submission
    hostile = attrs.evolve(
        plain,
        student=words,
        labels=words,
        command=words,
        findings=(Finding(level="info", check=words, text=words),),
        submission=attrs.evolve(
            about,
            method=words,
            authors=(words,),
            licence=words,
            dataset=words,
            teacher=words,
            claimed=tuple(attrs.evolve(claim, source=words, student=words) for claim in about.claimed),
            cost=attrs.evolve(about.cost, device=words),
        ),
        measured=attrs.evolve(plain.measured, device=words, protocol=words, ddrank=words),
    )
    made = []
    for name, shown in (("plain", plain), ("hostile", hostile)):
        (folder / "run.yaml").write_bytes(b"dataset: digits" if shown is plain else words.encode())
        varied = attrs.evolve(shown, variant=Variant(axis="labels", name=words if shown is hostile else "x"))
        build([shown, varied], tmp_path / name)
        pages = {p: c.decode() for p, c in files(tmp_path / name).items() if p.endswith(".html")}
        made.append({page: [tag for tag, _ in Elements(content).found] for page, content in pages.items()})
    assert made[0] == made[1]


# -- what is written ---------------------------------------------------------------------------


def test_the_pages_ask_for_nothing_from_outside(tmp_path, folder):
    build(entries(3, folder), tmp_path / "site")
    for name, content in files(tmp_path / "site").items():
        if not name.endswith(".html"):
            continue
        page = Elements(content.decode())
        asked = [
            *page.values("script", "src"),
            *page.values("link", "href"),
            *page.values("img", "src"),
            *page.values("iframe", "src"),
        ]
        assert not [address for address in asked if re.match("(https?:)?//", address)], name
        policy = next(of["content"] for tag, of in page.found if of.get("http-equiv"))
        assert policy.startswith("default-src 'none'; script-src 'sha256-"), name
        assert "unsafe" not in policy
        # An attribute with a style or a handler is what the policy would refuse.
        assert not [of for _, of in page.found if any(a == "style" or a.startswith("on") for a in of)]


def test_the_index_holds_all_that_it_needs(tmp_path, folder):
    page = Elements(index(in_order(entries(3, folder))))
    assert page.values("script", "src") == []
    assert page.values("link", "href") == ["data:,"]


def test_the_same_entries_in_any_order_make_the_same_bytes(tmp_path, folder):
    made = entries(12, folder)
    build(made, tmp_path / "one")
    build(list(reversed(made)), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_every_submission_has_a_page_and_the_index_leads_to_it(tmp_path, folder):
    made = entries(7, folder)
    built = build(made, tmp_path / "site")
    written = files(tmp_path / "site")
    rows = board(made)["rows"]
    assert (7, 14, ()) == (built.submissions, built.rows, built.left_out)
    assert {row["page"] for row in rows} == {n for n in written if n.startswith("submissions/m")}
    assert built.bytes == sum(map(len, written.values()))


def test_a_page_has_the_arms_the_findings_the_config_and_the_command(tmp_path, folder):
    found = Finding(level="warning", check="real images", text="images[3] is train image 118")
    made = entry(4, folder, findings=(found,))
    build([made], tmp_path / "site")
    (page,) = (content.decode() for name, content in files(tmp_path / "site").items() if "/method" in name)
    words = "".join(Elements(page).words)
    mean, half, _ = summary(made.measured.arms["syn-any"])
    claim = made.submission.claimed[0].accuracy
    for wanted in (
        percent(mean, half),
        percent(claim),
        found.text,
        made.command,
        "dataset: digits  # <script>",
    ):
        assert wanted in words


def test_a_page_ranks_its_variants_and_says_why_one_has_no_score(tmp_path, folder):
    own = attrs.evolve(entry(4, folder), augmentation="dsa")
    names = {9: "crop", 14: "none", 19: "mixup"}
    made = [own, *variants(own, {n: Variant(axis="augmentation", name=name) for n, name in names.items()})]
    lost = {**made[3].measured.arms, "syn-any": (None, 0.5, 0.5, 0.5, 0.5)}
    made[3] = attrs.evolve(made[3], measured=attrs.evolve(made[3].measured, arms=lost))
    build(made, tmp_path / "site")
    (page,) = (content.decode() for name, content in files(tmp_path / "site").items() if "/method" in name)
    table = page.partition('<table class="varied">')[2].partition("</table>")[0]
    shown = [re.findall("<td[^>]*>(.*?)(?:<|$)", row) for row in table.split("<tr>")[2:]]
    heads = re.findall('<th scope="row">(.*?)</th>', table)
    (wanted,) = (one for one in tables(made) if one.key.axis)
    assert [f"{row.mean:.4f} ± {row.ci95:.4f}" for row in wanted.rows] == [cells[1] for cells in shown[:3]]
    assert ["–", "syn-any: 1 of 5 repeats without accuracy", "–"] == shown[3]
    assert {"as submitted: dsa", "crop", "none"} == set(heads[:3])
    assert "mixup" == heads[3]
    # Three drawn intervals, and the arms of the three variants folded below.
    assert (3, 3) == (table.count("<line"), page.count("<details>"))


def test_a_page_has_the_scores_at_the_tables_weight_whatever_the_recipes_own_is(tmp_path, folder):
    made = entry(4, folder)
    stated = {**made.measured.scores, "lrs": (0.9, 0.01), "ior": (0.1, None)}
    build([attrs.evolve(made, measured=attrs.evolve(made.measured, scores=stated))], tmp_path / "site")
    (page,) = (content.decode() for name, content in files(tmp_path / "site").items() if "/method" in name)
    words = "".join(Elements(page).words)
    (lrs, half), (ars, other_half) = (made.measured.scores[name] for name in ("lrs", "ars"))
    for wanted in (
        f"LRS, w = 0.5{lrs:.4f} ± {half:.4f}",
        f"ARS, g = 0.5{ars:.4f} ± {other_half:.4f}",
        "IOR10.00 points",
    ):
        assert wanted in words
    assert "0.9000" not in words


def test_five_hundred_submissions_are_less_than_three_megabytes_gzipped(tmp_path, folder):
    """Configs, tables and drawings, without pictures; both tracks of each."""
    (folder / "run.yaml").write_text(asset("site.css")[:1000])
    build(entries(500, folder), tmp_path / "site")
    assert sum(len(gzip.compress(content)) for content in files(tmp_path / "site").values()) < 3_000_000


def test_rows_hold_every_repeat_and_of_controls_what_differs(folder):
    made = entry(2, folder)
    (row,) = board([made])["rows"]
    assert {name: list(values) for name, values in made.measured.arms.items()} == row["arms"]
    for (name, arms, _), (given, control) in zip(row["controls"], made.controls.items(), strict=True):
        assert given == name
        assert {**row["arms"], **arms} == {arm: list(values) for arm, values in control.arms.items()}
        assert "full-hard" not in arms


def test_an_arm_that_a_control_lacks_is_none_in_its_row(folder):
    made = entry(2, folder)
    lacking = {name: values for name, values in made.controls["noise"].arms.items() if name != "syn-aug"}
    noise = attrs.evolve(made.controls["noise"], arms=lacking)
    (row,) = board([attrs.evolve(made, controls={"noise": noise})])["rows"]
    ((name, arms, _),) = row["controls"]
    assert ("noise", {"syn-aug"}) == (name, {arm for arm, values in arms.items() if values is None})


def test_an_accuracy_is_none_where_a_repeat_diverged(folder):
    made = entry(2, folder).measured
    assert summary(made.arms["syn-any"])[:2] == recipe_accuracy(made)
    lost = {**made.arms, "syn-any": (None, *made.arms["syn-any"][1:])}
    assert (None, None) == recipe_accuracy(attrs.evolve(made, arms=lost))


def test_a_record_of_absurd_size_leaves_its_submission_out(tmp_path, folder):
    absurd = attrs.evolve(entry(1, folder), image_bytes=1 << 20_000)
    built = build([absurd, entry(2, folder)], tmp_path / "site")
    slug = absurd.submission.slug
    assert ((slug, "its record states images of more than 1 PiB"),) == built.left_out
    assert 1 == built.rows


def test_a_published_accuracy_has_no_interval_and_a_diverged_arm_no_mean():
    assert (0.98, None, 5) == summary((0.98,) * 5)
    assert (None, None, 0) == summary((None, None))
    # By hand: mean 0.6, standard deviation 0.1, t quantile 4.3027 for 2 degrees of freedom.
    mean, half, n = summary((0.5, 0.6, None, 0.7))
    assert (pytest.approx(0.6), pytest.approx(0.24841, abs=1e-5), 3) == (mean, half, n)


# -- the folder that is written to ---------------------------------------------------------------


def test_a_site_is_replaced_and_other_files_stay(tmp_path, folder):
    site = tmp_path / "site"
    build(entries(3, folder), site)
    (site / "CNAME").write_text("example.org")
    build(entries(1, folder), site)
    names = sorted(files(site))
    assert [
        "CNAME",
        "index.html",
        "submissions/_files.txt",
        "submissions/method-000/cifar10-ipc1.html",
        "submissions/~page.css",
    ] == names


@pytest.mark.parametrize("name", ["index.html", "submissions/method/digits-ipc1/submission.yaml"])
def test_files_of_somebody_else_are_never_replaced(tmp_path, folder, name):
    site = tmp_path / "site"
    (site / name).parent.mkdir(parents=True)
    (site / name).write_text("mine")
    with pytest.raises(DataError, match="no leaderboard; choose another folder"):
        build(entries(1, folder), site)
    assert {name: b"mine"} == files(site)


def test_a_full_disk_leaves_the_site_as_it_was(tmp_path, folder, monkeypatch):
    site = tmp_path / "site"
    build(entries(1, folder), site)
    before = files(site)

    def full(path: Path, content: bytes) -> int:
        if path.name == "index.html":
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(content)

    monkeypatch.setattr(building, "_write", full)
    with pytest.raises(DataError, match="the site cannot be written: No space left on device"):
        build(entries(3, folder), site)
    assert before == files(site)


@pytest.mark.parametrize(
    "slug",
    [
        "../digits-ipc1",
        "a/../../digits-ipc1",
        "a/b/digits-ipc1",
        "/a/digits-ipc1",
        "a\\b/digits-ipc1",
        "_page/d",
    ],
)
def test_a_slug_that_is_no_folder_of_its_own_is_left_out(tmp_path, folder, slug):
    built = build([entry(1, folder), entry(2, folder, slug=slug)], tmp_path / "site")
    assert [slug] == [left for left, _ in built.left_out]
    assert 1 == built.rows
    assert {"site", "submission"} == {path.name for path in tmp_path.iterdir()}


def test_names_that_differ_in_case_only_do_not_overwrite_each_other(tmp_path, folder):
    made = [entry(1, folder, slug="A/digits-ipc1"), entry(1, folder, slug="a/digits-ipc1")]
    built = build(made, tmp_path / "site")
    assert [("a/digits-ipc1")] == [left for left, _ in built.left_out]


# -- pictures ----------------------------------------------------------------------------------


def png(width: int, height: int, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0\0\0\0" + more


def with_picture(folder: Path, name: str):
    return entry(
        1, folder, findings=(Finding(level="warning", check="real images", text="seen", picture=name),)
    )


def test_a_finding_brings_its_picture(tmp_path, folder):
    (folder / "check-1.png").write_bytes(png(4, 5))
    build([with_picture(folder, "check-1.png")], tmp_path / "site")
    written = files(tmp_path / "site")
    (page,) = (content.decode() for name, content in written.items() if "/method" in name and "html" in name)
    (source,) = Elements(page).values("img", "src")
    assert png(4, 5) == written[f"submissions/method-001/{source}"]


def a_link(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(png(4, 5))
    (folder / "check-1.png").symlink_to(folder.parent / "secret.png")


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (a_link, "no link"),
        (lambda folder: (folder / "check-1.png").write_bytes(png(40_000, 40_000)), "40000 x 40000 pixels"),
        (lambda folder: (folder / "check-1.png").write_bytes(png(4, 5, bytes(5 << 20))), "larger than 4 MiB"),
        (lambda folder: (folder / "check-1.png").write_bytes(png(0, 5)), "0 x 5 pixels"),
        (lambda folder: (folder / "check-1.png").write_bytes(png(4, 0)), "4 x 0 pixels"),
        (lambda folder: (folder / "check-1.png").write_bytes(b"<svg onload=alert(1)>"), "is no PNG"),
        (lambda folder: (folder / "check-1.png").mkdir(), "must be a file"),
        (lambda folder: None, "cannot be read"),
    ],
    ids=["link", "bomb", "large", "flat", "thin", "svg", "folder", "missing"],
)
def test_a_picture_that_is_none_leaves_its_submission_out(tmp_path, folder, put, why):
    put(folder)
    good = tmp_path / "good"
    good.mkdir()
    (good / "run.yaml").write_text("dataset: digits")
    built = build([with_picture(folder, "check-1.png"), entry(2, good)], tmp_path / "site")
    ((slug, said),) = built.left_out
    assert ("method-001/cifar10-ipc10", 1) == (slug, built.rows)
    assert why in said


def decoded(picture: bytes) -> torch.Tensor:
    """Return a PNG's pixels as Pillow reads them, [4, H, W]."""
    with Image.open(io.BytesIO(picture)) as opened:
        return torch.tensor(np.asarray(opened.convert("RGBA"))).permute(2, 0, 1)


def save(path: Path, images: torch.Tensor, labels: list[int], space: ImageSpace, classes: int = 2) -> None:
    found = DistilledSet(
        images=images, labels=torch.tensor(labels), soft_labels=None, space=space, num_classes=classes
    )
    distilled_file.save(found, path)


def test_images_are_drawn_a_row_for_each_class(tmp_path):
    images = torch.tensor([0.0, 1.0, 0.2, 0.4]).reshape(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous()
    save(tmp_path / "set.safetensors", images, [1, 0, 0, 1], ImageSpace(kind="unit"))
    drawn = decoded(images_png(tmp_path / "set.safetensors"))
    # Tiles of 8 pixels become 64, with gaps of 4.
    assert (4, 132, 132) == tuple(drawn.shape)
    corners = [[drawn[:, y, x].tolist() for x in (0, 68)] for y in (0, 68)]
    grey = [[255, 51], [0, 102]]
    assert [[[value] * 3 + [255] for value in row] for row in grey] == corners
    assert drawn[3, 66, 66] == 0


def test_normalised_images_are_drawn_as_they_look(tmp_path):
    images = torch.tensor([[-1.0, 0.0, 1.0]]).reshape(1, 3, 1, 1).expand(2, 3, 4, 4).contiguous()
    space = ImageSpace(kind="normalised", mean=(0.5, 0.4, 0.6), std=(0.25, 0.25, 0.25))
    save(tmp_path / "set.safetensors", images, [0, 1], space)
    drawn = decoded(images_png(tmp_path / "set.safetensors"))
    assert [round(255 * value) for value in (0.25, 0.4, 0.85)] == drawn[:3, 0, 0].tolist()


def test_a_submission_that_brings_a_set_shows_its_images(tmp_path, folder):
    save(folder / "set.safetensors", torch.rand(2, 1, 8, 8), [0, 1], ImageSpace(kind="unit"))
    made = DistilledFile(path=folder / "set.safetensors", sha256="0" * 64, bytes=1)
    build([entry(1, folder, distilled=made)], tmp_path / "site")
    drawn = files(tmp_path / "site")["submissions/method-001/cifar10-ipc10/images.png"]
    assert images_png(folder / "set.safetensors") == drawn
    # A picture that the author brings may be of anything.
    (folder / "distilled.png").write_bytes(png(4, 5))
    build([entry(1, folder, distilled=made)], tmp_path / "site")
    assert drawn == files(tmp_path / "site")["submissions/method-001/cifar10-ipc10/images.png"]


@pytest.mark.parametrize("fetched", [False, True])
def test_a_pinned_set_is_drawn_where_it_was_fetched_and_else_shown_as_its_author_does(
    tmp_path, folder, fetched
):
    save(folder / "set.safetensors", torch.rand(2, 1, 8, 8), [0, 1], ImageSpace(kind="unit"))
    drawn, whole = images_png(folder / "set.safetensors"), (folder / "set.safetensors").read_bytes()
    (folder / "run.yaml").write_text("distilled: {path: set.safetensors}\n")
    (folder / "distilled.png").write_bytes(png(4, 5))
    if not fetched:
        (folder / "set.safetensors").write_bytes(bytes(len(whole)))
    pinned = DistilledFile(
        url="https://example.org/set", sha256=hashlib.sha256(whole).hexdigest(), bytes=len(whole)
    )
    build([entry(1, folder, distilled=pinned)], tmp_path / "site")
    written = files(tmp_path / "site")
    assert (drawn if fetched else png(4, 5)) == written["submissions/method-001/cifar10-ipc10/images.png"]
    page = Elements(written["submissions/method-001/cifar10-ipc10.html"].decode())
    assert fetched == any("distilled images of" in words for words in page.values("img", "alt"))
    assert fetched != ("The author's own picture: it was not drawn from the set." in "".join(page.words))


# -- the command ---------------------------------------------------------------------------------


def test_build_writes_a_folder_of_submissions_and_names_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = submit(tmp_path / "submissions", "dm", {"own/method": record(), "own/random": record(-0.1)})
    save(shown / "set.safetensors", torch.rand(2, 1, 8, 8), [0, 1], ImageSpace(kind="unit"))
    redeclare(shown)
    submit(tmp_path / "submissions", "later", {})
    submit(tmp_path / "submissions", "broken", {"own/method": "{"})
    # Its distilled set is none that could be drawn.
    submit(tmp_path / "submissions", "damaged", {"own/method": record()})
    assert 0 == main(["leaderboard", "build", "site"])
    said = capsys.readouterr()
    assert said.out.startswith("site/index.html: 1 submissions, 1 rows, ")
    starts = ["left out: broken/digits-ipc1: ", "not evaluated yet: later", "left out: damaged/digits-ipc1: "]
    assert starts == [line[: len(start)] for line, start in zip(said.err.splitlines(), starts, strict=True)]
    page = "".join(Elements(Path("site/submissions/dm/digits-ipc1.html").read_text()).words)
    # LRS: by hand, a = (IOR - HLR) / 2 is -0.025, -0.03 and -0.01. The method's accuracy, and the control's.
    values = [(math.exp(a) - math.exp(-1)) / (math.e - math.exp(-1)) for a in (-0.025, -0.03, -0.01)]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert f"LRS, w = 0.5{np.mean(values):.4f} ± {half:.4f}" in page
    for wanted in ("82.0 ± 5.0 %", "72.0 ± 5.0 %"):
        assert wanted in page


def redeclare(folder: Path) -> None:
    """Declare the distilled set that lies in a submission's folder now."""
    raw = (folder / "set.safetensors").read_bytes()
    about = yaml.safe_load((folder / "submission.yaml").read_text())
    about["distilled"] |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (folder / "submission.yaml").write_text(yaml.safe_dump(about))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "site", "--submissions", "nowhere"], "no such folder"),
        (["build", "site", "--submissions", "empty"], "no evaluated submission"),
        (["serve", "empty"], "'ddrank leaderboard build empty' makes the site"),
    ],
    ids=["no folder", "no submission", "no site"],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert 2 == main(["leaderboard", *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "site").exists()


def test_the_chart_library_carries_its_licence():
    licence, library = asset("chart.LICENSE.md"), asset("chart.umd.min.js")
    (version,) = re.findall(r"Chart\.js v([\d.]+)", library[:200])
    assert f"Chart.js {version}" in licence
    assert "Permission is hereby granted, free of charge" in licence
