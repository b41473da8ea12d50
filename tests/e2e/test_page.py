"""The page in a real browser: images and cameras go in, boxes come out."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.request
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from null_engines import null_run
from serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=document.title='broken'>"
IMAGE = cv2.imencode(".png", np.full((120, 160, 3), 90, np.uint8))[1].tobytes()
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
FLAGS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]

DROP = """([bytes, type]) => {
  const data = new DataTransfer();
  const raw = Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0));
  data.items.add(new File([raw], "file", { type }));
  document.getElementById("stage").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
DRAWN = """() => {
  const canvas = document.getElementById("boxes");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.some((value) => value > 0);
}"""
TRACK = "document.getElementById('video').srcObject.getVideoTracks()[0]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("NO CHROMIUM: the page goes untested (tests/install_tools.sh)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = null_run(tmp_path_factory.mktemp("run"), classes=(HOSTILE, "dog"))
    with served(run, "--shadow", "baseline") as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page; whatever it complains of, and whatever it loads from elsewhere, fails the test."""
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()
    complaints: list[str] = []

    def said(message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "blob:")):
            complaints.append(request.url)

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", said)
    page.on("request", asked)
    page.set_default_timeout(15_000)
    page.goto(address)
    page.wait_for_selector("#health.pass")
    yield page
    context.close()
    assert complaints == []


def drop(page: Any, content: bytes, kind: str) -> None:
    page.evaluate(DROP, [base64.b64encode(content).decode(), kind])


def detections(address: str) -> list[dict[str, Any]]:
    asked = urllib.request.Request(f"{address}/v1/detect", IMAGE, {"Content-Type": "image/png"})  # noqa: S310
    with urllib.request.urlopen(asked) as answer:  # noqa: S310
        return list(json.load(answer)["detections"])


def test_an_image_that_is_dropped_gets_its_boxes(page: Any, address: str) -> None:
    expected = detections(address)
    assert expected
    drop(page, IMAGE, "image/png")
    page.wait_for_selector("#found li")
    assert page.text_content("#count") == str(len(expected))
    names = page.locator("#found .name").all_text_contents()
    assert names == [each["name"] for each in expected]
    assert page.evaluate(DRAWN)
    assert "ms" in page.text_content("#stages")


def test_the_slider_hides_what_is_not_sure(page: Any, address: str) -> None:
    best = max(each["score"] for each in detections(address))
    drop(page, IMAGE, "image/png")
    page.wait_for_selector("#found li")
    page.fill("#least", "95")
    assert page.text_content("#count") == str(int(best >= 0.95))


def test_a_camera_is_watched(page: Any) -> None:
    page.click("#camera")
    page.wait_for_selector("#took >> text=FPS")
    assert page.evaluate("document.getElementById('video').videoWidth > 0")
    assert page.locator("#found li").count() > 0
    page.click("#camera-again >> text=Stop")
    assert page.evaluate(f"{TRACK}.readyState") == "ended"
    page.click("#camera-again >> text=Camera")
    page.wait_for_selector("#camera-again >> text=Stop")
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('ended'))")  # somebody unplugs it
    page.wait_for_selector("#problem >> text=the camera has gone")
    page.click("#camera-again >> text=Camera")
    page.wait_for_selector("#camera-again >> text=Stop")
    drop(page, IMAGE, "image/png")  # an image takes over from the camera
    page.wait_for_selector("#took >> text=ms")
    assert page.is_hidden("#video")


def test_what_is_no_image_is_said_to_be_none(page: Any) -> None:
    drop(page, b"text", "text/plain")
    assert page.text_content("#problem") == "that is no image"
    drop(page, b"broken", "image/png")
    page.wait_for_selector("#problem >> text=cannot show this file")


def test_curves_versions_and_experiment_are_live(page: Any, address: str) -> None:
    for _ in range(5):
        detections(address)
    page.wait_for_selector("#throughput path.answered")
    page.wait_for_selector("#latency svg")
    assert page.locator(".version .pill").all_text_contents() == ["answers", "follows"]
    page.wait_for_selector("#experiment >> text=INCONCLUSIVE")
    assert page.locator(".ab-figure").count() == 5
    assert page.text_content("#ab-what") == "baseline gets a copy of 100 % of the requests"


def test_names_are_text_and_never_markup(page: Any) -> None:
    drop(page, IMAGE, "image/png")
    page.wait_for_selector("#found li")
    assert HOSTILE in page.locator("#found .name").all_text_contents()
    assert page.title() == "detector · raudo serve"


@pytest.mark.parametrize("width", [360, 1320])
def test_nothing_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    drop(page, IMAGE, "image/png")
    page.wait_for_selector("#found li")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_service_that_is_gone_is_seen_to_be(page: Any) -> None:
    page.route("**/v1/live", lambda route: route.fulfill(status=503))
    page.route(
        "**/v1/detect",
        lambda route: route.fulfill(
            status=429, json={"error": "64 requests wait already"}, headers={"Retry-After": "1"}
        ),
    )
    page.wait_for_selector("#health.fail")
    drop(page, IMAGE, "image/png")
    page.wait_for_selector("#problem >> text=64 requests wait already")
    assert (page.text_content("#count"), page.text_content("#took")) == ("0", "\N{EN DASH}")
