"""`ddrank new-plugin`: write a package of its own with a component that works, to be made into one's own."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from ddrank_core.spec import Kind

_TEMPLATES = Path(__file__).with_name("templates")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""A distribution's name by PEP 508."""

_FOLDERS = ("example", "tests")
"""What stands beside the import package."""


class _Starter(NamedTuple):
    """The component of a kind that a new package begins with; its source and its tests are templates."""

    module: str
    cls: str
    summary: str
    parameters: str
    """What the example config sets."""
    checks: int
    """How many the conformance kit has for it."""
    argument: tuple[str, str] | None = None
    """What the conformance kit is told of it: as which argument, and what."""
    helper: str = ""
    """What of its tests that needs."""

    @property
    def name(self) -> str:
        return self.module.replace("_", "-")


_STARTERS: Mapping[Kind, _Starter] = {
    "loss": _Starter(
        module="focal",
        cls="FocalLoss",
        summary="Focal loss (Lin et al. 2017)",
        parameters="gamma: 2.0",
        checks=17,
        helper="focal_by_hand",
        argument=("references", "focal_by_hand"),
    ),
    "label-mapping": _Starter(
        module="teacher_smoothing",
        cls="TeacherSmoothing",
        summary="Label smoothing towards a teacher (Yuan et al. 2020)",
        parameters="share: 0.5",
        checks=15,
    ),
    "augmentation": _Starter(
        module="random_erasing",
        cls="RandomErasing",
        summary="Random erasing (Zhong et al. 2020)",
        parameters="p: 0.5",
        checks=14,
    ),
    "architecture": _Starter(
        module="all_cnn",
        cls="AllCNN",
        summary="The all convolutional net (Springenberg et al. 2015)",
        parameters="width: 16",
        checks=15,
        argument=("image_shapes", "[(3, 32, 32), (1, 28, 28), (1, 8, 8)]"),
    ),
    "dataset": _Starter(
        module="bars_and_stripes",
        cls="BarsAndStripes",
        summary="Bars and stripes (MacKay 2003), drawn and not read",
        parameters="noise: 0.5",
        checks=10,
    ),
    "method": _Starter(
        module="herding",
        cls="Herding",
        summary="Herding (Welling 2009): the real images nearest to the mean",
        parameters="",
        checks=14,
    ),
    "sink": _Starter(
        module="markdown_table",
        cls="MarkdownTable",
        summary="A table of the trials in Markdown, while the run goes on",
        parameters="",
        checks=15,
    ),
}

_OTHERWISE: Mapping[Kind, str] = {
    "loss": "ce",
    "label-mapping": "hard",
    "augmentation": "{use: dsa, strategies: [color, crop, cutout, scale, rotate]}",
    "architecture": "{use: convnet, depth: 2, width: 32}",
    "dataset": "digits",
    "method": "random  # real images, so that the gain over random ones is near 0",
}
"""What the example config uses where the package brings no component of the kind; it names no sink."""

_PACKAGE_CHECKS = 3
"""How many checks the conformance kit has for a package, whatever it brings."""


class _Names(NamedTuple):
    """What pip, Python and configs call the package."""

    distribution: str
    package: str
    vendor: str


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(_STARTERS)),
    multiple=True,
    default=["loss"],
    show_default=True,
    help="What the package brings; may be given several times.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="The folder to make.  [default: the package's name]"
)
def command(name: str, kinds: tuple[Kind, ...], folder: Path | None) -> None:
    """Write a package NAME with a component that works, its tests and a run config, to be made your own.

    \b
        ddrank new-plugin ddrank-acme
        ddrank new-plugin ddrank-acme --kind augmentation --kind architecture
    """
    names = _names(name)
    place = Path(names.distribution) if folder is None else folder
    chosen = [kind for kind in _STARTERS if kind in kinds]
    _write(_files(names, chosen), place)
    click.echo(_next(names, chosen, place))


# -- names -------------------------------------------------------------------------------------


def _names(word: str) -> _Names:
    """Return the names of the distribution, its import package and its components' vendor.

    >>> _names("Ddrank_Acme")
    _Names(distribution='ddrank-acme', package='ddrank_acme', vendor='acme')

    Raises:
        ConfigError: if no package can be called that.
    """
    from ddrank_core.errors import ConfigError
    from ddrank_core.plugins import FIRST_PARTY

    if not _NAME.fullmatch(word):
        raise ConfigError(
            f"'{word}' cannot be a package's name: letters, digits and, inside, '.', '_' and '-'; "
            "such as ddrank-acme"
        )
    # PEP 503: all spellings of a name are one.
    distribution = re.sub("[._-]+", "-", word).lower()
    package = distribution.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package):
        raise ConfigError(f"'{word}': Python cannot import '{package}'; 'ddrank-{distribution}' would do")
    if distribution == FIRST_PARTY:
        raise ConfigError(f"'{word}' is the project's own name; choose another, such as ddrank-acme")
    if package in _FOLDERS:
        raise ConfigError(f"'{word}': the package has a folder '{package}' for others; choose another name")
    if _is_taken(package, distribution):
        raise ConfigError(f"'{word}': there is a module '{package}' already; choose another name")
    return _Names(distribution, package, distribution.removeprefix("ddrank-"))


def _is_taken(package: str, distribution: str) -> bool:
    """Return whether the module is the standard library's, or of a distribution that is no such plugin."""
    from importlib import metadata
    from importlib.util import find_spec

    found = find_spec(package)
    # A folder of that name, on the path by chance, has no origin.
    if found is None or found.origin is None:
        return False
    try:
        points = metadata.distribution(distribution).entry_points
    except metadata.PackageNotFoundError:
        return True
    return not any(point.group.startswith("ddrank.v") for point in points)


# -- files -------------------------------------------------------------------------------------


def _files(names: _Names, kinds: Sequence[Kind]) -> dict[str, str]:
    """Return the package's files: path -> text."""
    from ddrank_core import __version__
    from ddrank_core.hookspecs import ENTRY_POINT_GROUP

    common = names._asdict()
    files = {
        "pyproject.toml": _filled("pyproject.toml", common, version=__version__, group=ENTRY_POINT_GROUP),
        "README.md": _filled("README.md", common, **_readme(names, kinds)),
        f"{names.package}/__init__.py": _filled("manifest.py", common, hooks=_hooks(names, kinds)),
        "tests/test_contract.py": _filled("test_contract.py", common, **_contract(names, kinds)),
    }
    for kind in kinds:
        module = _STARTERS[kind].module
        source = (_TEMPLATES / f"{module}.py").read_text(encoding="utf-8")
        files[f"{names.package}/{module}.py"] = source
        files[f"tests/test_{module}.py"] = _filled(f"test_{module}.py", common)
    uses = _uses(names, kinds)
    for config in ("distill.yaml", "run.yaml"):
        files[f"example/{config}"] = _filled(config, common, **uses)
    return files


def _filled(template: str, values: Mapping[str, str], **more: str) -> str:
    text = (_TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values, **more)


def _component(names: _Names, kind: Kind) -> str:
    return f"{names.vendor}/{_STARTERS[kind].name}"


def _hooks(names: _Names, kinds: Sequence[Kind]) -> str:
    from ddrank_core.spec import HOOKS

    return "".join(
        _filled(
            "hook.py",
            {"hook": HOOKS[kind], "name": _component(names, kind), "package": names.package},
            **_STARTERS[kind]._asdict(),
        )
        for kind in kinds
    ).rstrip()


def _readme(names: _Names, kinds: Sequence[Kind]) -> dict[str, str]:
    rows = (
        f"| {kind} | `{_component(names, kind)}` | {_STARTERS[kind].summary} "
        f"| `{names.package}/{_STARTERS[kind].module}.py` |"
        for kind in kinds
    )
    shows = (f"ddrank show {kind} {_component(names, kind)}" for kind in kinds)
    return {"rows": "\n".join(rows), "shows": "\n".join(shows), "run": _run(names, kinds)}


def _run(names: _Names, kinds: Sequence[Kind]) -> str:
    """Return the command that evaluates with all that the package brings."""
    sink = f" --sink {_component(names, 'sink')}" if "sink" in kinds else ""
    return f"ddrank run example/run.yaml{sink}"


def _contract(names: _Names, kinds: Sequence[Kind]) -> dict[str, str]:
    """Return what the conformance kit is told of the components, and how many checks it has for them."""
    starters = [_STARTERS[kind] for kind in kinds]
    imports = [
        f"from test_{starter.module} import {starter.helper}\n" for starter in starters if starter.helper
    ]
    arguments = [
        f'    {argument[0]}={{\n        "{_component(names, kind)}": {argument[1]},\n    }},'
        for kind in kinds
        if (argument := _STARTERS[kind].argument)
    ]
    checks = _PACKAGE_CHECKS + sum(starter.checks for starter in starters)
    arguments.append(f"    checks={checks},")
    return {"imports": "".join(imports), "arguments": "\n".join(arguments)}


def _uses(names: _Names, kinds: Sequence[Kind]) -> dict[str, str]:
    """Return what the example configs say of each kind: the package's own, or one that ddrank brings."""
    uses = dict(_OTHERWISE)
    for kind in (kind for kind in kinds if kind in _OTHERWISE):
        parameters = _STARTERS[kind].parameters
        name = _component(names, kind)
        uses[kind] = f"{{use: {name}, {parameters}}}" if parameters else name
    teachers = f"[{_OTHERWISE['architecture']}]" if "label-mapping" in kinds else "[]"
    return {
        **{kind: use for kind, use in uses.items() if kind != "label-mapping"},
        "labels": uses["label-mapping"],
        "student": uses["architecture"],
        "teachers": teachers,
    }


# -- what is done with them --------------------------------------------------------------------


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write all files or none: into a folder beside, which then gets its name."""
    from tempfile import TemporaryDirectory

    from ddrank_core.errors import ConfigError

    try:
        if folder.exists():
            raise ConfigError(f"{folder}: exists; remove it, or give another --folder")
        if not folder.parent.is_dir():
            raise ConfigError(f"{folder}: no such folder: {folder.parent}")
        with TemporaryDirectory(dir=folder.parent, prefix=".new-plugin-") as place:
            # One level down, since a temporary folder itself is closed to other users.
            whole = Path(place, "package")
            for name, text in files.items():
                file = whole / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            whole.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error


def _next(names: _Names, kinds: Sequence[Kind], folder: Path) -> str:
    """Return what was written, and the commands that come next."""
    from ddrank_core.cli.text import table

    written = [
        (kind, _component(names, kind), str(folder / names.package / f"{_STARTERS[kind].module}.py"))
        for kind in kinds
    ]
    commands = (
        f"cd {shlex.quote(str(folder))}",
        "pip install -e '.[test]'",
        "pytest",
        "ddrank distill example/distill.yaml",
        _run(names, kinds),
    )
    return "\n".join([f"wrote {folder}", table(written, "  "), "next:", *(f"  {line}" for line in commands)])
