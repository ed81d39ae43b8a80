"""The server of `ddrank leaderboard serve`: a site's files to browsers on this machine, and nothing else."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from ddrank_core.leaderboard.site.folder import INDEX

ADDRESS = "127.0.0.1"
_HTTP_PORT = 80


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a site's folder, which listens; port 0 takes a free one.

    Raises:
        OSError: if the port cannot be used.
    """
    return ThreadingHTTPServer((ADDRESS, port), partial(_Files, directory=str(folder.resolve())))


class _Files(SimpleHTTPRequestHandler):
    """Answers with a file of the site, or an error."""

    def send_head(self) -> BytesIO | BinaryIO | None:
        if not self._is_asked_by_name():
            self.send_error(HTTPStatus.BAD_REQUEST, "Not the name of this machine")
            return None
        self._file = _file(Path(self.directory), self.path)
        if self._file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self._file)

    def _is_asked_by_name(self) -> bool:
        """Return whether the request is for this machine by its own name.

        A page elsewhere can give its name this machine's address, and then read what is answered.
        """
        port = self.connection.getsockname()[1]
        names = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        # Browsers leave out the usual port.
        names |= {ADDRESS, "localhost"} if port == _HTTP_PORT else set()
        return self.headers.get("Host", "").lower() in names


def _file(folder: Path, address: str) -> Path | None:
    """Return the file that a request's address names; None for what is none of the site's.

    No hidden file, no folder but the site's own, and nothing that a link has elsewhere.
    """
    try:
        parts = [part for part in unquote(urlsplit(address).path, errors="strict").split("/") if part]
        if any(part.startswith(".") or set(part) & {"\\", ":", "\0"} for part in parts):
            return None
        path = folder.joinpath(*parts) if parts else folder / INDEX
        found = path.resolve(strict=True)
        return path if found.is_relative_to(folder) and found.is_file() else None
    except (OSError, ValueError, RuntimeError):
        # No such file, a name too long, a loop of links, or no address at all.
        return None
