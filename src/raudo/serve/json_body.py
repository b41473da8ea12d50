"""JSON that clients send, and get.

It is bounded before it is parsed, for a few megabytes can mean gigabytes.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from raudo.serve.errors import BadRequestError, TooLargeError

MAX_VALUES = 2_000_000
"""Commas: an image of 640x640 as a list of numbers has 1.2 million."""
MAX_LISTS = 700_000
"""Brackets that open: the same image as nested lists has 410,000."""
MAX_NAMES = 10_000
"""Colons: no request has more than a few dozen names."""


def read_json(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        TooLargeError: It has so many values that reading them would hold up other requests.
        BadRequestError: It is no JSON object; NaN and infinities are none.
    """
    text = bytes(data)
    lists = text.count(b"[") + text.count(b"{")
    if text.count(b",") > MAX_VALUES or lists > MAX_LISTS or text.count(b":") > MAX_NAMES:
        raise TooLargeError(
            "the JSON has too many values", hint="send tensors by the binary extension"
        )
    try:
        content = from_json(text, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise BadRequestError(f"the body is no JSON: {error}"[:200]) from error
    if not isinstance(content, dict):
        raise BadRequestError("the body is no JSON object")
    return content


def write_json(content: object) -> bytes:
    """Return JSON; it has no NaN and no infinities, so that they become null."""
    return to_json(content, inf_nan_mode="null")
