"""Decoding, letterboxing, videos."""

from __future__ import annotations

import io
import tempfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from hostile_images import chunk, hostile_images, png
from hostile_images import encoded as encoded_as
from raudo import images
from raudo.errors import DataError
from raudo.media import encoded
from raudo.records import Letterbox, Spec

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8),
    (64, 48),
    interpolation=cv2.INTER_CUBIC,
)
SIZES = st.integers(1, 700)


def encode(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE[:, :, ::-1]).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def make_spec(
    height: int = 64, width: int = 64, placement: Any = "center", rounding: Any = "round"
) -> Spec:
    rule = Letterbox(placement=placement, rounding=rounding)
    return Spec(family="any", height=height, width=width, classes=("thing",), letterbox=rule)


SPECS = st.builds(
    make_spec,
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["center", "top_left", "stretch"]),
    st.sampled_from(["round", "floor"]),
)


# Decoding


@pytest.mark.parametrize(
    ("name", "data", "tolerance"),
    [
        ("a.png", encode("PNG"), 0),
        ("a.bmp", encode("BMP"), 0),
        ("a.tif", encode("TIFF"), 0),
        ("a.webp", encode("WEBP", lossless=True), 0),
        ("a.jpg", encode("JPEG", quality=95, subsampling=0), 12),
        ("cmyk.jpg", encode("JPEG", "CMYK", quality=95), 16),
        ("alpha.png", encode("PNG", "RGBA"), 0),
        ("wrong_suffix.jpg", encode("PNG"), 0),
        ("名前 ñ.png", encode("PNG"), 0),
        ("16.png", cv2.imencode(".png", PICTURE.astype(np.uint16) * 257)[1].tobytes(), 0),
        ("16.tif", cv2.imencode(".tif", PICTURE.astype(np.uint16) * 257)[1].tobytes(), 0),
    ],
)
def test_every_kind_of_colour_image_becomes_8_bit_bgr(
    tmp_path: Path, name: str, data: bytes, tolerance: int
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    image = images.decode(file)
    assert image.dtype == np.uint8
    assert image.shape == PICTURE.shape
    assert np.abs(image.astype(int) - PICTURE).max() <= tolerance
    assert images.read_size(file) == PICTURE.shape[:2]


@pytest.mark.parametrize("deep", [False, True])
def test_grey_is_repeated_on_three_channels(tmp_path: Path, deep: bool) -> None:
    grey = PICTURE[:, :, 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey.astype(np.uint16) * 256 + 255 if deep else grey)
    assert np.array_equal(images.decode(tmp_path / "grey.png"), np.dstack([grey] * 3))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(PICTURE[:, :, ::-1]).convert("P")
    picture.save(tmp_path / "palette.png")
    expected = np.asarray(picture.convert("RGB"))[:, :, ::-1]
    assert np.array_equal(images.decode(tmp_path / "palette.png"), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_known_from_the_header(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 95, "subsampling": 0}
        if kind == "JPEG"
        else {"lossless": True}
        if kind == "WEBP"
        else {}
    )
    file = tmp_path / "turned"
    file.write_bytes(encode(kind, exif=exif, **options))
    turned = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.swapaxes(0, 1),
        6: PICTURE.swapaxes(0, 1)[:, ::-1],
        7: PICTURE.swapaxes(0, 1)[::-1, ::-1],
        8: PICTURE.swapaxes(0, 1)[::-1],
    }[orientation]
    image = images.decode(file)
    assert images.read_size(file) == turned.shape[:2]
    assert image.shape == turned.shape
    assert np.abs(image.astype(int) - turned).max() <= (12 if kind == "JPEG" else 0)


def test_one_pixel(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.full((1, 1, 3), 7, np.uint8))
    assert images.decode(tmp_path / "one.png").tolist() == [[[7, 7, 7]]]


KINDS = {
    "baseline.jpg": encode("JPEG"),
    "progressive.jpg": encode("JPEG", progressive=True),
    "a.png": encode("PNG"),
    "a.bmp": encode("BMP"),
    "a.tif": encode("TIFF"),
    "lzw.tif": encode("TIFF", compression="tiff_lzw"),
    "a.webp": encode("WEBP"),
}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    file = tmp_path / name
    file.write_bytes(KINDS[name][: int(len(KINDS[name]) * share)])
    with pytest.raises(DataError, match=f"cannot read .*{name}") as caught:
        images.decode(file)
    assert "\n" not in caught.value.message + caught.value.hint


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image() -> None:
    thumbnail = encode("JPEG", quality=10)
    segment = b"Exif\0\0" + thumbnail
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    whole = encode("JPEG")
    with_thumbnail = whole[:2] + header + whole[2:]
    assert encoded.is_whole(with_thumbnail)
    assert not encoded.is_whole(with_thumbnail[:-40])


def test_padding_between_the_segments_of_a_jpeg_file() -> None:
    whole = encode("JPEG")
    assert encoded.is_whole(whole[:2] + b"\xff\xff\xff" + whole[2:])
    assert encoded.is_whole(whole + b"trailing")


@pytest.mark.parametrize(
    "name",
    ["a PNG whose chunk is too long", "a PNG that inflates to 1 GB", "a JPEG of 300 scans"],
)
def test_what_decoders_choke_on_never_reaches_them(name: str) -> None:
    assert not encoded.is_whole(hostile_images()[name])


def test_a_png_of_noise_is_larger_than_its_pixels_and_still_whole() -> None:
    assert encoded.is_whole(png(8, 8, chunk(b"IDAT", bytes(60_000))))
    assert encoded.is_whole(encoded_as("PNG", 300, 200))


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damage_gives_an_image_or_a_data_error(name: str, data: st.DataObject) -> None:
    damaged = bytearray(KINDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(damaged)
        try:
            image = images.decode(Path(folder) / name)
        except DataError:
            return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


def test_a_huge_image_is_refused_from_its_header(tmp_path: Path) -> None:
    data = bytearray(encode("PNG"))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(data)
    with pytest.raises(DataError, match="more than 100 million pixels"):
        images.decode(tmp_path / "huge.png")


def test_the_size_of_an_image_is_read_without_decoding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    for name, data in KINDS.items():
        (tmp_path / name).write_bytes(data)
        assert images.read_size(tmp_path / name) == (48, 64)


def test_no_package_is_asked_to_read_unknown_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(*_: Any, **__: Any) -> None:
        raise AssertionError("a patched PIL.Image.open was called")

    monkeypatch.setattr(Image, "open", install)
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match="no image at all"):
        images.decode(tmp_path / "text.jpg")
    (tmp_path / "a.png").write_bytes(encode("PNG"))
    assert images.read_size(tmp_path / "a.png") == (48, 64)


def test_just_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encode("PNG"))
    monkeypatch.setattr(encoded, "MAX_PIXELS", 64 * 48)
    assert images.decode(tmp_path / "a.png").shape == (48, 64, 3)
    monkeypatch.setattr(encoded, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DataError, match="million pixels"):
        images.decode(tmp_path / "a.png")


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(encode("GIF"))
    (tmp_path / "gif.png").write_bytes(encode("GIF"))
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name, words in {
        "a.gif": "GIF, which is not supported",
        "gif.png": "GIF, which is not supported",
        "text.jpg": "no image at all",
        "empty.jpg": "it is empty",
        "absent.jpg": "no such image",
    }.items():
        with pytest.raises(DataError, match=words):
            images.decode(tmp_path / name)


def test_decoding_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in KINDS.items():
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError):
            images.decode(tmp_path / name)
    assert capfd.readouterr() == ("", "")


# Letterboxing


@given(SIZES, SIZES, SPECS)
def test_the_image_fills_its_window_and_the_rest_is_padding(
    height: int, width: int, spec: Spec
) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    out, placed = images.letterbox(white, spec)
    assert out.shape == (spec.height, spec.width, 3)
    inside = np.zeros(out.shape[:2], bool)
    inside[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width] = True
    assert inside.sum() == placed.width * placed.height > 0
    assert (out[inside] == 255).all()
    assert (out[~inside] == spec.letterbox.fill).all()
    if spec.letterbox.placement == "stretch":
        assert inside.all()
    else:
        margin = min(spec.width - placed.width, spec.height - placed.height)
        assert margin <= (1 if spec.letterbox.rounding == "floor" else 0)


@given(st.integers(1, 20_000), st.integers(1, 20_000), SPECS)
def test_the_scaled_image_never_exceeds_the_input(height: int, width: int, spec: Spec) -> None:
    placed = images.fit(height, width, spec)
    assert 0 <= placed.left <= placed.left + placed.width <= spec.width
    assert 0 <= placed.top <= placed.top + placed.height <= spec.height
    assert placed.width >= 1 <= placed.height


@given(SIZES, SIZES, SPECS, st.tuples(*[st.floats(0, 1)] * 4))
def test_boxes_map_to_the_input_and_back(
    height: int, width: int, spec: Spec, share: tuple[float, float, float, float]
) -> None:
    placed = images.fit(height, width, spec)
    side, scale = np.array([width, height] * 2), np.array([placed.scale_x, placed.scale_y] * 2)
    box = np.array(share) * side
    there = (box * scale + np.array([placed.left, placed.top] * 2)).astype(np.float32)
    back = placed.to_image(there[None])
    assert back.dtype == np.float32
    assert np.abs(back[0] - box).max() <= 1e-4 * (1 + max(spec.height, spec.width) / scale.min())


@pytest.mark.parametrize("placement", ["center", "top_left", "stretch"])
def test_a_drawn_box_is_found_where_the_scale_says(placement: str) -> None:
    image = np.zeros((300, 500, 3), np.uint8)
    image[60:180, 100:250] = 255
    spec = make_spec(416, 320, placement)
    out, placed = images.letterbox(image, spec)
    window = np.zeros_like(out)
    area = np.s_[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
    window[area] = out[area]
    rows, columns = np.nonzero(window[:, :, 0] > 127)
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    found = placed.to_image(np.array([corners], np.float32))[0]
    pixel = 1 / min(placed.scale_x, placed.scale_y)
    assert np.abs(found - [100, 60, 250, 180]).max() <= pixel


def test_boxes_are_clipped_to_the_image() -> None:
    placed = images.fit(100, 200, make_spec(64, 64))
    boxes = np.array([[-9, -9, 99, 99]], np.float32)
    assert placed.to_image(boxes).tolist() == [[0, 0, 200, 100]]
    assert placed.to_image(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_letterbox_writes_into_the_array_it_is_given() -> None:
    out = np.zeros((2, 64, 96, 3), np.uint8)
    image = PICTURE.repeat(3, axis=0)
    given_back, _ = images.letterbox(image, make_spec(64, 96), out=out[1])
    assert given_back.base is out
    assert np.array_equal(out[1], images.letterbox(image, make_spec(64, 96))[0])
    assert not out[0].any()


def test_views_of_larger_arrays_are_letterboxed_as_they_are() -> None:
    mirrored = PICTURE[:, ::-1]
    expected = images.letterbox(np.ascontiguousarray(mirrored), make_spec(32, 32))[0]
    assert np.array_equal(images.letterbox(mirrored, make_spec(32, 32))[0], expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_cannot_be_letterboxed(image: Any) -> None:
    with pytest.raises(DataError, match=r"must be uint8 \[height, width, 3\]"):
        images.letterbox(image, make_spec())


@settings(max_examples=60)
@given(SIZES, SIZES, st.sampled_from([(64, 64), (96, 160), (416, 416), (65, 127)]))
def test_center_is_what_ultralytics_does(height: int, width: int, size: tuple[int, int]) -> None:
    augment = pytest.importorskip("ultralytics.data.augment")
    image = np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )
    peer = augment.LetterBox(size, auto=False, scaleup=True)
    scale = min(size[0] / height, size[1] / width)
    if min(round(height * scale), round(width * scale)) == 0:
        return  # there it fails: nothing would be left of the image
    assert np.array_equal(images.letterbox(image, make_spec(*size))[0], peer(image=image))


@settings(max_examples=60)
@given(st.integers(20, 700), st.integers(20, 700))
def test_top_left_is_what_yolox_does(height: int, width: int) -> None:
    image = np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )
    scale = min(416 / height, 416 / width)  # arXiv 2107.08430, the authors' demo
    scaled = cv2.resize(image, (int(width * scale), int(height * scale)))
    expected = np.full((416, 416, 3), 114, np.uint8)
    expected[: scaled.shape[0], : scaled.shape[1]] = scaled
    spec = make_spec(416, 416, "top_left", "floor")
    assert np.array_equal(images.letterbox(image, spec)[0], expected)


# Folders and videos


def test_a_folder_lists_its_images_by_name(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "._a.png", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [p.name for p in images.list_images(tmp_path)] == ["a.png", "b.JPG", "c.webp"]


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image in"):
        images.list_images(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        images.list_images(tmp_path / "absent")


def write_video(path: Path, frames: int, code: str = "MJPG") -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 20.0, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), index * 10 % 256, np.uint8))
    writer.release()


def test_a_video_tells_its_frames_and_times(tmp_path: Path) -> None:
    write_video(tmp_path / "ñ.avi", 5)
    with images.open_video(tmp_path / "ñ.avi") as video:
        assert (video.fps, video.frames) == (20.0, 5)
        found = [(time, int(frame.mean())) for time, frame in video]
    assert [time for time, _ in found] == pytest.approx([0, 50, 100, 150, 200])
    assert [grey for _, grey in found] == pytest.approx([0, 10, 20, 30, 40], abs=3)
    assert len(list(images.read_video(tmp_path / "ñ.avi"))) == 5


def test_a_video_that_changes_size_keeps_its_first(tmp_path: Path) -> None:
    small, large = (
        cv2.imencode(".jpg", np.full((*size, 3), 90, np.uint8))[1].tobytes()
        for size in ((48, 64), (96, 128))
    )
    (tmp_path / "a.avi").write_bytes(small * 5 + large * 5)  # FFmpeg looks at the contents
    with images.open_video(tmp_path / "a.avi") as video:
        assert video.frames is None
        assert {frame.shape for _, frame in video} == {(48, 64, 3)}


@pytest.mark.parametrize("content", [b"", b"not a video", b"\0" * 5000])
def test_what_is_no_video(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v01.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .* as a video"):
        images.open_video(tmp_path / "v01.mp4")
    with pytest.raises(DataError, match="no such video"):
        list(images.read_video(tmp_path / "absent.mp4"))
    assert capfd.readouterr() == ("", "")


def test_a_video_without_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 0)
    with pytest.raises(DataError, match=r"no frame in|as a video"):
        list(images.read_video(tmp_path / "a.avi"))


def test_a_video_whose_size_changes_midway_keeps_the_first(tmp_path: Path) -> None:
    shades = [np.full(size, 200, np.uint8) for size in ((240, 320), (300, 640)) for _ in range(5)]
    stream = b"".join(cv2.imencode(".jpg", shade)[1].tobytes() for shade in shades)
    (tmp_path / "v.mpeg").write_bytes(stream)
    frames = list(images.read_video(tmp_path / "v.mpeg"))
    assert [frame.shape for frame in frames] == [(240, 320, 3)] * 10
    assert min(frame.min() for frame in frames) > 150, "scaled, not cut out or filled up"


def test_a_video_cut_off_before_its_index(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30, "mp4v")
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="as a video"):
        images.open_video(tmp_path / "a.mp4")


def test_no_such_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="there is no camera 97"):
        images.open_camera(97)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp"])
def test_an_image_in_memory_is_the_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"picture{suffix}"
    cv2.imencode(suffix, PICTURE)[1].tofile(file)
    data = file.read_bytes()
    assert images.read_size(data) == images.read_size(file) == PICTURE.shape[:2]
    np.testing.assert_array_equal(images.decode(data), images.decode(file))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n", b"no image at all"])
def test_no_image_in_memory_is_an_error(data: bytes) -> None:
    with pytest.raises(DataError, match="the image"):
        images.decode(data)
