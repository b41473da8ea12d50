"""An image file's own bytes: how large the image will be, and whether they are all there."""

from __future__ import annotations

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


def read_size(stream: BinaryIO, name: str) -> tuple[int, int]:
    """Return (height, width) of an image as it will be decoded, from its header alone.

    Args:
        stream: The file, at its start.
        name: What errors call it.

    Raises:
        DataError: The file is empty, not an image, or larger than MAX_PIXELS.
    """
    start = stream.read(8)
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error below
            width, height = _turned_size(_open_header(stream, start, name))
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError) as error:
        raise damaged(name, empty=not start) from error
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels",
            hint="scale it down first: a detector looks at about a million",
        )
    return height, width


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
    """Tell whether a JPEG or PNG file has its end; other files are left to their decoders.

    OpenCV before 5 fills what is missing of a JPEG file with grey, and only warns. The end is
    looked for after the headers (ITU-T T.81, annex B), since a thumbnail in them has its own.
    """
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-64:]
    if not data.startswith(b"\xff\xd8"):
        return True
    place = 2
    while (marker := data[place : place + 2]) and marker != b"\xff\xda":
        padding = marker == b"\xff\xff"
        place += 1 if padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) >= 0
