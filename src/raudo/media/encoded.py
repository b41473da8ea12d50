"""An image file's own bytes: how large the image will be, and whether they are all there."""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING

from raudo.errors import DataError

if TYPE_CHECKING:
    from typing import BinaryIO

    from PIL.ImageFile import ImageFile

MAX_PIXELS = 100_000_000
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
ORIENTATION = 0x0112  # EXIF 2.32, table 4: 5 to 8 lie on their side
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
MAX_SCANS = 100  # a progressive JPEG file has about ten; each costs as much as the whole image
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PNG_SLACK = 1 << 16


def read_size(stream: BinaryIO, name: str) -> tuple[int, int]:
    """Return (height, width) of an image as it will be decoded, from its header alone.

    Args:
        stream: The file, at its start.
        name: What errors call it.

    Raises:
        DataError: The file is empty, not an image, or larger than MAX_PIXELS.
    """
    from PIL.Image import DecompressionBombError

    start = stream.read(8)
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error below
            width, height = _turned_size(_open_header(stream, start, name))
    except DecompressionBombError as error:  # some of Pillow's readers look for themselves
        raise _too_large(name) from error
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError) as error:
        raise damaged(name, empty=not start) from error
    if width * height > MAX_PIXELS:
        raise _too_large(name)
    return height, width


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels",
        hint="scale it down first: a detector looks at about a million",
    )


def _open_header(stream: BinaryIO, start: bytes, name: str) -> ImageFile:
    """Open an image by its first bytes.

    Not by `PIL.Image.open`: packages replace that one, and then unknown files make them install
    decoders.
    """
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    kinds: dict[bytes, type[ImageFile]] = {
        b"\xff\xd8\xff": JpegImageFile,
        b"\x89PNG": PngImageFile,
        b"BM": BmpImageFile,
        b"II": TiffImageFile,
        b"MM": TiffImageFile,
        b"RIFF": WebPImageFile,
    }
    if start.startswith(b"GIF8"):
        raise DataError(
            f"{name} is a GIF, which is not supported", hint="convert it to PNG, or to MP4"
        )
    found = next((kind for first, kind in kinds.items() if start.startswith(first)), None)
    if found is None:
        raise ValueError("of no known kind")
    return found(stream)


def _turned_size(image: ImageFile) -> tuple[int, int]:
    """Return (width, height) after EXIF orientation, from the header.

    `image.getexif` would decode a whole PNG file, and knows of orientations that OpenCV does not.
    Some versions of Pillow turn the size of a TIFF file already, so that is taken from its tags.
    """
    from PIL.Image import Exif
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        width, height, orientation = tags[TIFF_WIDTH], tags[TIFF_HEIGHT], tags.get(ORIENTATION, 1)
    else:
        exif = Exif()
        exif.load(image.info.get("exif", b""))
        (width, height), orientation = image.size, exif.get(ORIENTATION, 1)
    return (height, width) if orientation in {5, 6, 7, 8} else (width, height)


def damaged(name: str, *, empty: bool) -> DataError:
    """Return the error for an image that cannot be read."""
    found = "empty" if empty else "damaged, cut off, or no image at all"
    return DataError(
        f"cannot read {name}: it is {found}",
        hint=f"replace the file; {', '.join(FORMATS)} with 8 or 16 bits a channel can be read",
    )


def is_whole(data: bytes) -> bool:
    """Tell whether a JPEG or PNG file has its end, and nothing that decoders choke on.

    Other files are left to their decoders. OpenCV before 5 fills what is missing of a JPEG file
    with grey, and only warns; OpenCV 5 makes room for as much as a PNG chunk claims to have.
    """
    if data.startswith(b"\x89PNG"):
        return _is_whole_png(data)
    return not data.startswith(b"\xff\xd8") or _is_whole_jpeg(data)


def _is_whole_jpeg(data: bytes) -> bool:
    """Look for the end after the headers (ITU-T T.81, annex B): a thumbnail in them has its own.

    In what is entropy-coded no marker occurs by chance, so scans can be counted.
    """
    place = 2
    while (marker := data[place : place + 2]) and marker != b"\xff\xda":
        padding = marker == b"\xff\xff"
        place += 1 if padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) >= 0 and data.count(b"\xff\xda", place) <= MAX_SCANS


def _is_whole_png(data: bytes) -> bool:
    """Go from chunk to chunk to the end (ISO/IEC 15948, 5.3).

    Deflating makes nothing much larger: pixels that come in far more bytes than they are
    inflate to what is no part of the image.
    """
    width, height, depth, colour = struct.unpack_from(">IIBB", data.ljust(26, b"\0"), 16)
    row = 1 + (width * depth * PNG_CHANNELS.get(colour, 4) + 7) // 8
    room = row * height + row * height // 8 + PNG_SLACK
    place, name = len(b"\x89PNG\r\n\x1a\n"), b""
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if name == b"IDAT":
            room -= length
        if name == b"IEND" or room < 0:
            break
    return name == b"IEND" and place <= len(data)
