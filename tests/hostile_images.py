"""Image files that are made to hurt: bombs, liars, fragments and two things at once."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from functools import cache

import numpy as np
from PIL import Image

PIXELS = 40_000
MEBIBYTE = 1 << 20


def encoded(kind: str, width: int = 64, height: int = 48, **options: object) -> bytes:
    """A whole file of some picture that is not all one colour."""
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, data: bytes, length: int | None = None) -> bytes:
    """A chunk of a PNG file (ISO/IEC 15948, 5.3), perhaps with a length that is not its own."""
    size = len(data) if length is None else length
    return struct.pack(">I", size) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file with this header and these chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join((chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


def deflated(count: int) -> bytes:
    """So many zero bytes, deflated to a thousandth of them: one block, again and again.

    Blocks that end in a full flush know nothing of each other (RFC 1951); of zeros, the checksum
    is known (RFC 1950).
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = packer.compress(bytes(count % MEBIBYTE)) + packer.flush()
    checksum = struct.pack(">HH", count % 65_521, 1)
    return b"\x78\xda" + block * (count // MEBIBYTE) + rest + checksum


def jpeg_sized(width: int, height: int) -> bytes:
    """A JPEG file whose frame header (T.81, B.2.2) claims another size."""
    whole = bytearray(encoded("JPEG"))
    place = whole.index(b"\xff\xc0") + 5
    whole[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def many_scans(count: int) -> bytes:
    """A progressive JPEG file whose last scan comes again and again."""
    whole = encoded("JPEG", 512, 512, progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def bmp_sized(width: int, height: int, offset: int = 54) -> bytes:
    whole = bytearray(encoded("BMP"))
    whole[10:14] = struct.pack("<I", offset)
    whole[18:26] = struct.pack("<ii", width, height)
    return bytes(whole)


def tiff(
    *entries: tuple[int, int, int, int], following: int = 0, count: int | None = None
) -> bytes:
    """A TIFF file of one directory: tags, types, counts and values (TIFF 6.0, section 2)."""
    number = len(entries) if count is None else count
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, number) + rows + struct.pack("<I", following)


def tiff_sized(width: int, height: int, **options: int) -> bytes:
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1))
    more = ((278, height), (279, min(width * height, 2**32 - 1)))
    return tiff(*((tag, 4, 1, value) for tag, value in (*tags, *more)), **options)


def exif(payload: bytes) -> bytes:
    """A JPEG file with such an APP1 segment."""
    segment = b"Exif\0\0" + payload
    marker = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    whole = encoded("JPEG")
    return whole[:2] + marker + whole[2:]


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../image.png", bytes(64 * MEBIBYTE))
    return stream.getvalue()


@cache
def hostile_images() -> dict[str, bytes]:
    """Files by what they are; none of them is a whole, honest image."""
    jpeg, whole_png = encoded("JPEG"), encoded("PNG")
    webp = encoded("WEBP", lossless=True)
    rows = zlib.compress(bytes(10 * 31))
    noise = np.random.default_rng(1).integers(0, 256, 65_536, np.uint8).tobytes()
    return {
        "nothing": b"",
        "one byte": b"\xff",
        "noise": noise,
        "text": b"hello, detector",
        "html": b"<html><script>alert(1)</script></html>",
        "svg with an entity": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "a pickle": b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "a zip bomb": zipped(),
        "a gzip bomb": gzip.compress(bytes(64 * MEBIBYTE)),
        "a GIF of 65535x65535": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
        "a PNM of 40000x40000": b"P6 40000 40000 255\n" + noise,
        "a PFM of 40000x40000": b"PF\n40000 40000\n-1.0\n" + noise,
        "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + noise,
        "an OpenEXR": b"\x76\x2f\x31\x01\x02\0\0\0" + noise,
        "a Radiance": b"#?RADIANCE\n\n-Y 40000 +X 40000\n" + noise,
        "a Sun raster": b"\x59\xa6\x6a\x95" + noise,
        "a PSD": b"8BPS\0\x01" + noise,
        "an AVIF": b"\0\0\0\x1cftypavif" + noise,
        "a JPEG's start": jpeg[:20],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "a JPEG without its end": jpeg[:-2],
        "a JPEG of 65500x65500": jpeg_sized(65_500, 65_500),
        "a JPEG of 40000x40000": jpeg_sized(PIXELS, PIXELS),
        "a JPEG of 0x0": jpeg_sized(0, 0),
        "a JPEG without tables": b"\xff\xd8" + jpeg[jpeg.index(b"\xff\xc0") :],
        "a JPEG with an endless segment": b"\xff\xd8\xff\xe0\xff\xff" + jpeg[20:],
        "a JPEG with a segment of length 0": b"\xff\xd8\xff\xe0\0\0" + jpeg[20:],
        "a JPEG of markers only": b"\xff\xd8" + b"\xff" * 100_000,
        "a JPEG of 300 scans": many_scans(300),
        "half a PNG": whole_png[: len(whole_png) // 2],
        "a PNG's signature": whole_png[:8],
        "a PNG of 40000x40000": png(PIXELS, PIXELS, chunk(b"IDAT", rows)),
        "a PNG of 2147483647x1": png(2**31 - 1, 1, chunk(b"IDAT", rows)),
        "a PNG of 0x0": png(0, 0, chunk(b"IDAT", rows)),
        "a PNG of unknown depth": png(10, 10, chunk(b"IDAT", rows), depth=7),
        "a PNG without a palette": png(10, 10, chunk(b"IDAT", rows), colour=3),
        "a PNG without pixels": png(10, 10),
        "a PNG with too few pixels": png(1000, 1000, chunk(b"IDAT", rows)),
        "a PNG whose chunk is too long": png(10, 10, chunk(b"IDAT", rows, length=2**32 - 1)),
        "a PNG with a wrong checksum": whole_png[:40] + b"\0\0\0\0" + whole_png[44:],
        "a PNG whose pixels are noise": png(10, 10, chunk(b"IDAT", noise)),
        "a PNG that inflates to 1 GB": png(10, 10, chunk(b"IDAT", deflated(1 << 30))[:-8]),
        "a PNG with 1 GB of text": png(10, 10, chunk(b"zTXt", b"a\0\0" + deflated(1 << 30))),
        "a PNG with a profile of 1 GB": png(10, 10, chunk(b"iCCP", b"a\0\0" + deflated(1 << 30))),
        "a BMP of 40000x40000": bmp_sized(PIXELS, PIXELS),
        "a BMP of -2147483648 rows": bmp_sized(64, -(2**31)),
        "a BMP of 0x0": bmp_sized(0, 0),
        "a BMP whose pixels lie beyond its end": bmp_sized(64, 48, offset=2**31 - 1),
        "half a BMP": encoded("BMP")[:2000],
        "a TIFF of 40000x40000": tiff_sized(PIXELS, PIXELS),
        "a TIFF that points to itself": tiff_sized(64, 48, following=8),
        "a TIFF with 65535 entries": tiff_sized(64, 48, count=65_535),
        "a TIFF with an endless tag": tiff((256, 4, 2**32 - 1, 8), (257, 4, 2**32 - 1, 8)),
        "a TIFF without tags": tiff(),
        "half a TIFF": encoded("TIFF")[:100],
        "a WebP of 16384x16384": b"RIFF"
        + struct.pack("<I", 30)
        + b"WEBPVP8X"
        + struct.pack("<IB", 10, 0)
        + b"\0\0\0\xff\x3f\0\xff\x3f\0",
        "half a WebP": webp[: len(webp) // 2],
        "a WebP with a wrong length": b"RIFF\xff\xff\xff\xff" + webp[8:],
    }


def odd_images() -> dict[str, bytes]:
    """Files that an honest decoder may take or leave; what matters is that it stays alive."""
    jpeg, whole_png = encoded("JPEG"), encoded("PNG")
    loop = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    return {
        "a JPEG with a ZIP behind it": jpeg + zipped(),
        "a JPEG with a script in a comment": jpeg[:2]
        + b"\xff\xfe\0\x13<?php system(1);"
        + jpeg[2:],
        "a PNG with a script behind it": whole_png + b"<script>alert(1)</script>",
        "a JPEG with EXIF that points to itself": exif(loop),
        "a JPEG with EXIF of noise": exif(bytes(range(256)) * 16),
        "a JPEG with an orientation of 99": exif(
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"
        ),
        "a progressive JPEG": encoded("JPEG", 512, 512, progressive=True),
        "a PNG of one pixel": encoded("PNG", 1, 1),
        "a PNG of 1x8000": encoded("PNG", 8000, 1),
        "a JPEG of 8000x1": encoded("JPEG", 1, 8000),
        "a PNG of 6000x6000 in 40 kB": png(
            6000, 6000, chunk(b"IDAT", deflated(6000 * 6001)), colour=0
        ),
    }
