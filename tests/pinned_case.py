"""A submission that pins its set on a server of this machine: for tests of `ddrank submission fetch`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from https_server import Server, content, serving

from ddrank_core.cli.main import main

RAW = bytes(range(256)) * 4096
"""Stands for a distilled set: 1 MiB."""
DIGEST = hashlib.sha256(RAW).hexdigest()
ABOUT: dict[str, Any] = {
    "method": "DC",
    "authors": ["A. Author"],
    "licence": "MIT",
    "dataset": "digits",
    "ipc": 1,
    "saw": ["train images"],
    "recipe": "run.yaml",
}


@contextmanager
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a server that this process trusts, reaches without a proxy, and finds RAW on."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(certificate) as running:
        running.answers["/set"] = content(RAW)
        yield running


def pin(root: Path, url: str, *, path: str = "set.safetensors", **changes: Any) -> Path:
    """Write a submission that pins RAW at an address; return its folder."""
    folder = root / "dc" / "digits-ipc1"
    folder.mkdir(parents=True)
    pinned = {"url": url, "sha256": DIGEST, "bytes": len(RAW), **changes}
    (folder / "submission.yaml").write_text(yaml.safe_dump({**ABOUT, "distilled": pinned}))
    (folder / "run.yaml").write_text(yaml.safe_dump({"distilled": {"path": path}}))
    return folder


def fetched(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["submission", "fetch", str(folder), *options])
    return code, *capsys.readouterr()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


AS_WRITTEN = ["run.yaml", "submission.yaml"]


def refused(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """Fetch what cannot be had; return the one line without the file that declares it."""
    before = names(folder)
    code, out, err = fetched(capsys, folder, "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert before == names(folder)
    return err.rstrip().removeprefix(f"error: {folder}/submission.yaml: distilled.")
