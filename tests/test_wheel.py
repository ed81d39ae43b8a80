"""What the built wheel holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def sources() -> set[str]:
    """Return modules, templates, fixed recipes and the site's files, as the wheel should name them."""
    core = {path.relative_to(ROOT) for path in (ROOT / "ddrank_core").rglob("*.py")}
    templates = {path.relative_to(ROOT) for path in (ROOT / "ddrank_core/cli/templates").glob("*.tmpl")}
    tracks = {path.relative_to(ROOT) for path in (ROOT / "ddrank_core/leaderboard/tracks").iterdir()}
    assets = {path.relative_to(ROOT) for path in (ROOT / "ddrank_core/leaderboard/site/assets").iterdir()}
    plugins = {path.relative_to(ROOT / "plugins") for path in (ROOT / "plugins").rglob("*.py")}
    assert templates
    assert tracks
    return {path.as_posix() for path in core | templates | tracks | assets | plugins}


def test_it_holds_the_engine_and_every_plugin_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert sources() == files


def test_it_carries_the_licence_the_launcher_and_the_entry_points(wheel):
    info = next(name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    text = wheel.read(info).decode()
    packages = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file())
    assert "ddrank = ddrank_core.cli.main:main" in text
    for package in packages:
        assert f"= {package}\n" in text
    assert any(name.endswith("LICENSE") for name in wheel.namelist())
    metadata = wheel.read(info.replace("entry_points.txt", "METADATA")).decode()
    assert "License-Expression: MIT" in metadata
