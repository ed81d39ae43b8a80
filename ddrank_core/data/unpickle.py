"""Read what `torch.save` wrote, without ever running code that a file carries."""

from __future__ import annotations

import io
import pickletools
import re
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

from ddrank_core.errors import DataError

MAX_FILE_BYTES = 8 << 30
MAX_PICKLE_BYTES = 64 << 20
"""Of the pickle inside a zip file, whose tensors are stored beside it."""

_LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number that torch's older format begins with, as pickled, after two bytes of protocol."""
_HARMLESS = ("torch.", "numpy.", "collections.", "_codecs.")
"""What ordinary files name; an error that called this code would alarm for nothing."""
_PLAIN = "save its images and labels again as plain tensors"
_FORMATS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""numpy's names of number types -> struct's."""


class _NumpyType:
    """Stands in for `numpy.dtype` while a file is read: a file cannot reach numpy's own C code."""

    def __init__(self, code: str, *_options: object) -> None:
        self.format = _FORMATS[code]
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">", "|": "<"}[state[1]]


def _numpy_scalar(kind: _NumpyType, raw: bytes) -> int | float | bool:
    """Stand in for numpy's function of that name, which turns bytes into one number."""
    value: int | float | bool = struct.unpack(kind.order + kind.format, raw)[0]
    return value


def read(path: Path) -> Any:
    """Return the tensors and plain values of a torch file, zip or legacy format, on the CPU.

    Recorded accuracies are often numpy numbers, so those are read too, as Python numbers. Nothing
    else but tensors and plain values is: any other class or function named by the file is refused.

    Raises:
        DataError: if the file is missing, too large, not a torch file, cut off, or names code.
    """
    start = _start(path)
    if start[:2] == b"PK":
        _check_zip(path)
    elif start[:1] != b"\x80":
        raise DataError(f"{path}: not a torch file (nothing that torch.save writes begins like this)")
    import torch

    allowed: list[Any] = [(_NumpyType, "numpy.dtype")]
    allowed += [(_numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            # It warns of pickle protocols that it then refuses.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file can make the reader raise anything
        raise DataError(f"{path}: {_reason(path, start, error)}") from error


def _start(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path}: not a plain file")
        if about.st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than {MAX_FILE_BYTES >> 30} GiB, which no distilled set is")
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not start:
        raise DataError(f"{path}: empty file")
    return start


def _check_zip(path: Path) -> None:
    """Refuse zip files that are cut off, or that unpack to more than they hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: cut off or damaged: the directory at its end cannot be read") from error
    pickles = [entry.file_size for entry in entries if entry.filename.endswith("data.pkl")]
    if not pickles:
        raise DataError(f"{path}: not a torch file (a zip file without data.pkl)")
    if max(pickles) > MAX_PICKLE_BYTES:
        raise DataError(f"{path}: holds more than {MAX_PICKLE_BYTES >> 20} MiB of Python objects")
    # torch.save stores without compressing, so what is unpacked is never more than the file.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DataError(f"{path}: not a torch file (a compressed zip file)")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise DataError(f"{path}: damaged: its parts claim more bytes than the file has")


def _reason(path: Path, start: bytes, error: Exception) -> str:
    """Say in a few words why a file could not be read."""
    is_zip, is_legacy = start[:2] == b"PK", start[2:].startswith(_LEGACY_START)
    # torch's older format begins with five pickles: magic, version, system, content, storage keys.
    names, whole = _scan(_pickles(path, is_zip), 5 if is_legacy else 1)
    refused = re.findall(r"GLOBAL (\w+(?:\.\w+)+)", str(error))
    foreign = [name for name in [*refused, *names] if not name.startswith(_HARMLESS)]
    if foreign:
        return f"holds code ({foreign[0][:80]}), refused; {_PLAIN}"
    if not is_zip and not is_legacy:
        return f"not a torch file: a pickle that torch.save did not write{'' if whole else ', and cut off'}"
    if refused:
        return f"holds more than tensors and plain values ({refused[0][:80]}), refused; {_PLAIN}"
    if not whole or isinstance(error, EOFError) or "unexpected EOF" in str(error):
        return "cut off: it ends before what it says it holds"
    if "Unsupported operand" in str(error):
        return "saved with another pickle protocol than torch's; save it again with torch.save's default"
    # Not torch's own text: it advises to load the file again in the way that runs its code.
    return f"cannot be read as a torch file ({type(error).__name__})"


def _pickles(path: Path, is_zip: bool) -> bytes:
    if not is_zip:
        with path.open("rb") as file:
            return file.read(MAX_PICKLE_BYTES)
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _scan(raw: bytes, count: int) -> tuple[list[str], bool]:
    """Return the classes and functions that `count` pickles name, and whether the pickles are whole.

    Only to word an error: nothing is executed here, and nothing is allowed because of it.
    """
    names: list[str] = []
    stream = io.BytesIO(raw)
    try:
        for _ in range(count):
            _collect_names(stream, names)
    except Exception:  # pickletools raises whatever the damage leads to
        return names, False
    return names, True


def _collect_names(stream: io.BytesIO, names: list[str]) -> None:
    """Append what one pickle names, module and all, as far as the pickle goes."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            names.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif "UNICODE" in opcode.name:
            texts.append(str(argument))
