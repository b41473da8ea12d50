"""Reads the pickle of a checkpoint that is a zip archive, once nothing misleads or is damaged."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO

from raudo.errors import SourceError

MAX_PICKLE_BYTES = 1 << 28
MAX_INFLATION = 20
HINT_DAMAGED = "get the file again: its download or copy may have been cut off"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_pickle(stream: BinaryIO) -> bytes:
    """Return the one pickle of an archive that torch.save wrote.

    Raises:
        SourceError: It is another archive, or damaged, weights included.
    """
    try:
        _check_directory_end(stream)
        size = stream.seek(0, io.SEEK_END)
        with zipfile.ZipFile(stream) as archive:
            _check_members(archive, size)
            pickle = archive.read(_pickle(archive))
            if damaged := archive.testzip():  # PyTorch itself does not check the weights
                raise zipfile.BadZipFile(f"{damaged} does not match its CRC-32")
            return pickle
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,  # a compression that Python does not know
        RuntimeError,
        EOFError,
        struct.error,
        zlib.error,
        ValueError,
        OSError,
    ) as error:
        raise SourceError(
            f"its zip archive is damaged or cut off ({error})", hint=HINT_DAMAGED
        ) from error


def _check_directory_end(stream: BinaryIO) -> None:
    """Refuse archives in which two readers could see two different contents.

    The record at the end must be the last 22 bytes, and what it points to must lie directly
    before it (APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16), so that Python's reader and that of
    PyTorch find the same central directory.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 98))
    tail = stream.read()
    stream.seek(0)
    if len(tail) < 22 or tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("no end of its directory")
    length, start = struct.unpack("<LL", tail[-10:-2])
    end = size - 22
    if tail[-42:-38] == b"PK\x06\x07":
        (end,) = struct.unpack("<Q", tail[-34:-26])
        if end != size - 98 or tail[:4] != b"PK\x06\x06":
            raise zipfile.BadZipFile("a misplaced end of its directory")
        length, start = struct.unpack("<QQ", tail[40:56])
    if start + length != end or tail[-2:] != b"\0\0":
        raise zipfile.BadZipFile("data around its directory")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = [member.filename.casefold() for member in members]
    if len(set(names)) != len(names):
        raise zipfile.BadZipFile("two members of one name")
    if any(member.flag_bits & 0x1 for member in members):
        raise SourceError("its zip archive is encrypted", hint="unpack it, and save it unencrypted")
    if members and not any(member.CRC for member in members):
        raise SourceError(
            "its zip archive was saved without checksums, so that damage could not be told",
            hint="save it again after torch.serialization.set_crc32_options(True)",
        )
    if any(member.compress_type not in _COMPRESSIONS for member in members):
        raise zipfile.BadZipFile("a compression that PyTorch does not read")
    if sum(member.file_size for member in members) > MAX_INFLATION * size:
        raise SourceError(
            "its zip archive claims to unpack to an absurd size",
            hint="do not use this file: PyTorch writes checkpoints uncompressed",
        )
    if any(PurePosixPath(name).name == "constants.pkl" for name in names):
        raise SourceError(
            "it is a TorchScript archive, which holds code instead of a checkpoint",
            hint="use the checkpoint that it was exported from, or an ONNX export",
        )


def _pickle(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    found = [m for m in members if m.filename.casefold().endswith(".pkl")]
    root = members[0].filename.partition("/")[0] if members else ""
    if [m.filename for m in found] != [f"{root}/data.pkl"]:
        listed = ", ".join(m.filename for m in members[:3])
        raise SourceError(
            f"its zip archive is not a PyTorch checkpoint (it starts with {listed or 'nothing'})",
            hint="give the .pt or .pth file that training saved",
        )
    if found[0].file_size > MAX_PICKLE_BYTES:
        raise SourceError(
            f"its pickle has {found[0].file_size} bytes, more than any detector needs",
            hint="do not use this file",
        )
    return found[0]
