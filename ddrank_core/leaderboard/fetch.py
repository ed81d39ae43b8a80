"""Fetch a pinned distilled set: the file that a submission declares by its address, digest and size.

The address is a stranger's, and so is the server behind it. Only https is spoken, no redirect leads into a
network that the address itself is not in, no more bytes are taken than were declared, and the file appears
only if it is the declared one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from ddrank_core import __version__, yaml
from ddrank_core.data.distilled import digest
from ddrank_core.errors import ConfigError, DataError, one_line
from ddrank_core.leaderboard.submission import ABOUT, how_to_get, place_inside
from ddrank_core.leaderboard.types import DistilledFile, Submission
from ddrank_core.report.folder import staging

STALL_SECONDS = 60.0
"""After so long without any data a server is given up."""
_CHUNK = 1 << 18

Report = Callable[[int, int], None]
"""Told how many bytes have come, and of how many."""


def destination(submission: Submission) -> Path:
    """Return where a pinned set belongs: where the recipe reads it.

    Raises:
        ConfigError: one line, if the recipe names no file in the submission.
    """
    where, values = f"{submission.recipe}: distilled.path", yaml.read(submission.recipe)
    distilled = values.get("distilled") if isinstance(values, Mapping) else None
    name = distilled.get("path") if isinstance(distilled, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"{where}: missing; it names the file that is to be fetched")
    return place_inside(name, submission.folder, where)


def is_here(submission: Submission) -> bool:
    """Return whether the pinned set is here already.

    Raises:
        ConfigError: one line, if the recipe names no file in the submission.
        DataError: one line, if another file is in its place.
    """
    path, pinned = destination(submission), submission.distilled
    if not path.exists():
        return False
    again = "move it away, and fetch again"
    if not path.is_file():
        raise DataError(f"{path}: is a folder, where the distilled set belongs; {again}")
    if (size := path.stat().st_size) != pinned.bytes:
        raise DataError(f"{path}: has {size} bytes, but {ABOUT} declares {pinned.bytes}; {again}")
    if (found := digest(path)) != pinned.sha256:
        raise DataError(f"{path}: has the SHA-256 {found}, but {ABOUT} declares {pinned.sha256}; {again}")
    return True


def fetch(submission: Submission, report: Report) -> Path:
    """Download a pinned set that is not here; return its path.

    Raises:
        ConfigError: one line, if it is not at its address but made from what is there.
        DataError: one line, if it cannot be had, is not the declared file, or cannot be written.
    """
    path, pinned = destination(submission), submission.distilled
    if pinned.made_with is not None:
        raise ConfigError(f"{submission.recipe}: distilled.path: {how_to_get(submission)}")
    try:
        if (free := shutil.disk_usage(submission.folder).free) < pinned.bytes:
            raise DataError(f"{path}: needs {pinned.bytes} bytes, but {free} are free on its disk; make room")
        with staging(submission.folder) as unfinished:
            whole = unfinished / "distilled"
            _download(pinned, f"{submission.folder / ABOUT}: distilled", whole, report)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(whole, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _download(pinned: DistilledFile, where: str, whole: Path, report: Report) -> None:
    """Write what lies at the address into a new file, and check that it is the declared one."""
    url, found, done = str(pinned.url), hashlib.sha256(), 0
    with _opened(url, where) as response, whole.open("xb") as file:
        # Most servers say beforehand how much they send.
        if response.length not in (None, pinned.bytes):
            raise DataError(
                f"{where}.bytes: {url} has {response.length} bytes, but {pinned.bytes} are declared"
            )
        while part := _next(response, url, where):
            done += len(part)
            if done > pinned.bytes:
                raise DataError(f"{where}.bytes: {url} has more than the {pinned.bytes} bytes declared")
            found.update(part)
            file.write(part)
            report(done, pinned.bytes)
        file.flush()
        os.fsync(file.fileno())
    if done != pinned.bytes:
        raise DataError(f"{where}.bytes: {url} ended after {done} of the {pinned.bytes} bytes declared")
    if found.hexdigest() != pinned.sha256:
        raise DataError(
            f"{where}.sha256: {url} has the SHA-256 {found.hexdigest()}, but {pinned.sha256} is declared: "
            "this is not the file that was pinned"
        )


# -- the server --------------------------------------------------------------------------------


@contextmanager
def _opened(url: str, where: str) -> Iterator[HTTPResponse]:
    asked = Request(url, headers={"User-Agent": f"ddrank/{__version__}", "Accept-Encoding": "identity"})
    with _worded(url, where):
        response: HTTPResponse = _opener(where).open(asked, timeout=STALL_SECONDS)
    with response:
        if response.status != HTTPStatus.OK:
            raise DataError(f"{where}.url: {url} answers {_answer(response.status)}")
        yield response


def _next(response: HTTPResponse, url: str, where: str) -> bytes:
    with _worded(url, where):
        # `read` would wait for all of it, without limit if every byte came alone.
        return response.read1(_CHUNK)


@contextmanager
def _worded(url: str, where: str) -> Iterator[None]:
    """Turn what a network or a server can do wrong into one line."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise DataError(f"{where}.url: {url} answers {_answer(error.code)}") from error
    # Names and ports that cannot be are ValueErrors and OverflowErrors of the libraries below.
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        raise DataError(f"{where}.url: {url} {_trouble(error)}") from error


def _answer(code: int) -> str:
    """Return a status in the standard's words: the server's own are a stranger's."""
    if 300 <= code < 400:
        return f"{code}, which leads to no https address, or in a circle"
    known = {status.value: status.phrase for status in HTTPStatus}
    return f"{code} {known.get(code, '')}".rstrip()


def _trouble(error: BaseException) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"gives no data for {STALL_SECONDS:g} seconds; try again later"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted: {reason.verify_message}"
    if isinstance(reason, ssl.SSLError):
        return f"does not speak https: {reason.reason or one_line(reason)}"
    if isinstance(reason, socket.gaierror | ConnectionRefusedError):
        return f"cannot be reached: {reason.strerror}; is there a network?"
    if isinstance(reason, OSError):
        return f"breaks off: {reason.strerror or one_line(reason)}"
    if isinstance(reason, HTTPException) and not isinstance(reason, InvalidURL):
        return f"does not speak HTTP: {one_line(reason)}"
    return f"leads to what is no address: {one_line(reason) if isinstance(reason, Exception) else reason}"


# -- where it may lead -------------------------------------------------------------------------


def _opener(where: str) -> OpenerDirector:
    """Return what opens https addresses and nothing else, through the proxy that is set, if there is one."""
    opener = OpenerDirector()
    own: tuple[Any, ...] = (_Https(_Border(where)), _Redirects(where))
    for handler in (*own, ProxyHandler(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
        opener.add_handler(handler)
    return opener


class _Redirects(HTTPRedirectHandler):
    """Follows to https addresses without credentials."""

    def __init__(self, where: str) -> None:
        self._where = where

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        # The base class would read the answer to its end, and it may have none.
        fp.close()
        parts = urlsplit(newurl)
        if parts.scheme != "https" or parts.username is not None:
            what = "is not https" if parts.scheme != "https" else "holds a password"
            raise DataError(f"{self._where}.url: {req.full_url} leads to {newurl[:200]}, which {what}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Border:
    """Keeps a stranger's redirect out of the networks that only this machine can reach."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._first: bool | None = None

    def cross(self, place: str) -> None:
        """Let a connection to an address, or through a proxy to a name, go on or not.

        Raises:
            DataError: one line, if it is private and the first connection's was not.
        """
        private = is_private(place)
        if self._first is None:
            self._first = private
        if private and not self._first:
            raise DataError(f"{self._where}.url: leads to {place}, an address of a private network")


def is_private(place: str) -> bool:
    """Return whether an IP address is not one of the open internet; of a name only 'localhost' tells.

    >>> is_private("127.0.0.1"), is_private("fe80::1%eth0"), is_private("localhost"), is_private("1.1.1.1")
    (True, True, True, False)
    """
    try:
        address = ip_address(place.strip("[]"))
    except ValueError:
        return place == "localhost" or place.endswith(".localhost")
    return not address.is_global or address.is_multicast


class _Watched(HTTPConnection):
    """Asks at the border once it is known where a name has led, before a word is said there."""

    border: _Border
    _through: str | None = None

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None) -> None:
        self._through = urlsplit(f"//{host}").hostname
        super().set_tunnel(host, port, headers)

    def connect(self) -> None:
        if self._through is not None:
            # The proxy looks names up, and is itself where this machine's network wants it.
            self.border.cross(self._through)
        super().connect()
        if self._through is None:
            self.border.cross(self.sock.getpeername()[0])


class _Connection(HTTPSConnection, _Watched):
    """TLS over a connection that has been let through."""

    def __init__(self, host: str, *, border: _Border, **more: Any) -> None:
        super().__init__(host, **more)
        self.border = border


class _Https(HTTPSHandler):
    def __init__(self, border: _Border) -> None:
        super().__init__()
        self._border, self._trust = border, ssl.create_default_context()

    def https_open(self, req: Request) -> HTTPResponse:
        # The same connection class for every request, redirected ones too.
        make: Any = partial(_Connection, border=self._border, context=self._trust)
        return self.do_open(make, req)
