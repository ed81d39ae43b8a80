"""The docs for plugin authors: what they show is run, and what they say of the API is read from the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest
from jsonschema import Draft202012Validator
from plugin_contract import contract

import ddrank_core
import ddrank_core.testing
from ddrank_core import yaml
from ddrank_core.plugins import API_VERSION, installed
from ddrank_core.registry import default_registry
from ddrank_core.schema import schema_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


@attrs.frozen
class Block:
    """A fenced block of a page; `file` is what the line before it says that the block is all of."""

    language: str
    text: str
    file: str | None


_BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n\n(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_FILE = re.compile(r"\b(?:In|All of) `(?P<file>[\w./]+\.\w+)`:$")


def blocks(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        file = _FILE.search(found["before"])
        text = re.sub(f"^{found['indent']}", "", found["text"], flags=re.M)
        yield Block(found["language"], text, file["file"] if file else None)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_reader_of_pages_sees_languages_files_and_indented_blocks():
    page = "All of `a/b.py`:\n\n```python\nx = 1\n```\n\nSo:\n\n   ```yaml\n   a:\n     b\n   ```\n"
    assert list(blocks(page)) == [Block("python", "x = 1\n", "a/b.py"), Block("yaml", "a:\n  b\n", None)]


# The contract


def test_the_contract_is_the_one_of_the_sources():
    how = "python tests/plugin_contract.py > docs/plugin-contract.md"
    assert read("plugin-contract.md") == contract(), f"make it anew: {how}"


def test_every_public_name_is_in_the_contract():
    text = contract()
    for name in (*ddrank_core.__all__, *ddrank_core.testing.__all__):
        defined = re.findall(rf"^(?:class |def )?{re.escape(name)}(?:[:(]| =)", text, re.M)
        assert len(defined) == (name != "__version__"), name


def test_what_is_deprecated_is_said_to_be():
    said = "Nothing is deprecated today." not in read("api-evolution.md")
    assert said == ("Deprecated since" in contract())


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target.read_text(encoding="utf-8")), link


def headings(text: str) -> set[str]:
    """Return a page's headings as links name them."""
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


# The configs in pages


def test_configs_in_pages_keep_the_schema():
    schema, _ = schema_of("run", default_registry())
    # The components of the tutorial are not installed here: the tutorial's own config is run below.
    validator = Draft202012Validator(schema)
    shown = [
        block
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language == "yaml" and "distilled:" in block.text and "lab/" not in block.text
    ]
    assert shown
    for block in shown:
        assert [error.message for error in validator.iter_errors(yaml.parse(block.text, "page"))] == []


# How the API changes


def test_the_code_about_api_changes_runs():
    shown = [block for block in blocks(read("api-evolution.md")) if block.language == "python"]
    assert len(shown) == 2
    for block in shown:
        exec(compile(block.text, "docs/api-evolution.md", "exec"), {})


def test_a_package_with_manifests_for_two_apis_is_read_by_the_one_for_this(tmp_path, monkeypatch):
    (block,) = (block for block in blocks(read("api-evolution.md")) if block.language == "toml")
    groups: Mapping[str, Mapping[str, str]] = tomllib.loads(block.text)["project"]["entry-points"]
    info = tmp_path / "ddrank_lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ddrank-lab\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n{name} = {value}\n" for group, names in groups.items() for name, value in names.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = (plugin for plugin in installed() if plugin.distribution == "ddrank-lab")
    assert (found.value, found.api) == ("ddrank_lab.v1", API_VERSION)


# The tutorial


@attrs.define
class Shell:
    """Runs the commands of a page, the real ones, in a folder of its own."""

    folder: Path
    site: Path

    def run(self, command: str) -> str:
        """Run one command and return what it prints; one marked `# fails` must refuse, in one line."""
        words = shlex.split(command, comments=True)
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        expected = 2 if command.endswith("# fails") else 0
        done = subprocess.run(
            self._program(words),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == expected, f"{command}\n{done.stdout}{done.stderr}"
        return done.stderr if expected else done.stdout

    def _program(self, words: list[str]) -> list[str]:
        python = [sys.executable, "-m"]
        if words == ["pip", "install", "-e", ".[test]"]:
            # What it depends on is here, and a network may not be: the package alone, into a folder.
            apart = ["--no-deps", "--no-build-isolation", "--quiet", "--target", str(self.site), "."]
            return [*python, "pip", "install", *apart]
        programs = {"ddrank": [*python, "ddrank_core"], "pytest": [*python, "pytest", "-q"], "cat": ["cat"]}
        return [*programs[words[0]], *words[1:]]

    def _environment(self) -> dict[str, str]:
        # The folder comes first, as with `pip install -e`.
        path = os.pathsep.join(map(str, filter(None, (self.folder, self.site, os.environ.get("PYTHONPATH")))))
        return {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "DDRANK_CACHE": str(self.site.parent / "cache"),
            # Others that are installed beside the tests may have names of their own that are broken.
            **({"DDRANK_PLUGINS": "ddrank-lab"} if self.site.exists() else {}),
        }


def play(block: Block, shell: Shell) -> None:
    """Do what a block of the tutorial shows: write a file, run code or commands, compare what they print."""
    if block.file:
        file = shell.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(block.text, "docs/plugins.md", "exec"), {})
    elif block.language == "console":
        for command, expected in commands(block.text):
            said = shell.run(command)
            pattern = ".*".join(map(re.escape, expected.strip().split("...")))
            assert not expected or re.fullmatch(pattern, said.strip(), re.S), f"{command}\n{said}"
    else:
        assert block.language == "text"
        top, *listed = (line.split()[0] for line in block.text.splitlines())
        assert sorted(listed) == files_in(shell.folder.parent / top)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a block and what the block says that it prints."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def files_in(folder: Path) -> list[str]:
    """Return the files that a package began with: what tests and runs leave is in other folders."""
    made = ("__pycache__", ".pytest_cache", "build", "runs", "teachers")
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(
        str(file) for file in files if file.suffix != ".safetensors" and not set(made) & set(file.parts)
    )


def test_the_commands_of_a_block_are_read_with_what_they_print():
    assert list(commands("$ a b\nc\n...\n$ d\n")) == [("a b", "c\n...\n"), ("d", "")]


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path):
    shell = Shell(tmp_path, tmp_path / "site")
    shown = list(blocks(read("plugins.md")))
    assert {block.language for block in shown} == {"console", "python", "text", "yaml"}
    for block in shown:
        play(block, shell)
    schema = json.loads((shell.folder / "example/run.schema.json").read_text(encoding="utf-8"))
    config = yaml.read(shell.folder / "example/all.yaml")
    assert [error.message for error in Draft202012Validator(schema).iter_errors(config)] == []


def test_every_kind_of_the_tutorial_is_written_out():
    (manifest,) = (block for block in blocks(read("plugins.md")) if block.file == "ddrank_lab/__init__.py")
    modules = re.findall(r'"(ddrank_lab\.\w+):(\w+)"', manifest.text)
    written = {block.file: block.text for block in blocks(read("plugins.md")) if block.file}
    for module, cls in modules:
        file = f"{module.replace('.', '/')}.py"
        assert module == "ddrank_lab.focal" or f"class {cls}:" in written[file]
