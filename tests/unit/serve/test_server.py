"""The end of a service on systems that do not let everybody do everything."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from raudo.serve.server import deafen

if TYPE_CHECKING:
    from typing import Any


class Door(socket.socket):
    """A socket that may not be filtered, as an ordinary user's is on hardened kernels."""

    def setsockopt(self, *_: Any) -> None:
        raise self.refusal

    refusal: OSError = PermissionError(1, "Operation not permitted")


def test_an_ordinary_user_can_end_the_service_too() -> None:
    with Door() as door:
        deafen(door)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such filters")
def test_any_other_refusal_is_told() -> None:
    with Door() as door:
        door.refusal = OSError(92, "no such option")
        with pytest.raises(OSError, match="no such option"):
            deafen(door)
