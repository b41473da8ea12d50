"""An RTSP server of one recording, as much of it as one client needs that takes RTP over TCP.

The protocol is RFC 2326, its packets (RFC 3550) go between the answers (10.12), and hold MPEG-4 as
RFC 6416 says.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CLOCK = 90_000
"""Ticks a second, of all video."""
PAYLOAD_BYTES = 1400
GOODBYE = struct.pack("!BBHIBBHI", 0x80, 201, 1, 0, 0x81, 203, 1, 0)
"""RTCP: a report, which must come first, and BYE."""


def mpeg4_frames(recording: Path) -> list[bytes]:
    """Return the frames of an AVI file of MPEG-4, as it holds them."""
    data, found = recording.read_bytes(), []
    place = data.index(b"movi") + 4
    while data[place : place + 4] == b"00dc":
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append(data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return found


@dataclass(frozen=True)
class Recording:
    """What is served, as fast as it is taken.

    Attributes:
        seconds: How long it is said to be; None for what is live.
        goodbye: Whether the end is announced before the connection is closed.
    """

    frames: Sequence[bytes]
    fps: int
    seconds: float | None
    goodbye: bool


@contextmanager
def serving(recording: Recording) -> Iterator[str]:
    """Serve a recording, and yield its address."""
    with _Server(recording) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/video"
        server.shutdown()


class _Server(socketserver.ThreadingTCPServer):
    def __init__(self, recording: Recording) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.recording = recording


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while request := self._request():
            verb, number = request
            headers, body = [f"CSeq: {number}"], ""
            if verb == "DESCRIBE":
                headers.append("Content-Type: application/sdp")
                body = _description(self.server.recording.seconds)
            elif verb == "SETUP":
                headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            if verb in ("SETUP", "PLAY"):
                headers.append("Session: 1")
            headers.append(f"Content-Length: {len(body)}")
            self.wfile.write("\r\n".join(["RTSP/1.0 200 OK", *headers, "", body]).encode())
            if verb == "PLAY":
                self._play(self.server.recording)
                return

    def _request(self) -> tuple[str, str] | None:
        lines = []
        while line := self.rfile.readline().decode().strip():
            lines.append(line)
        numbers = [line.partition(":")[2] for line in lines if line.startswith("CSeq:")]
        return (lines[0].split()[0], numbers[0].strip()) if lines else None

    def _play(self, recording: Recording) -> None:
        for channel, packet in _packets(recording.frames, CLOCK // recording.fps):
            self._send(channel, packet)
        if recording.goodbye:
            self._send(1, GOODBYE)
            self.rfile.read()  # until the client is gone: what it has not read yet stays valid

    def _send(self, channel: int, packet: bytes) -> None:
        self.wfile.write(struct.pack("!cBH", b"$", channel, len(packet)) + packet)


def _description(seconds: float | None) -> str:
    """Return the recording in the words of RFC 8866."""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=video", "c=IN IP4 127.0.0.1", "t=0 0"]
    if seconds is not None:
        lines.append(f"a=range:npt=0-{seconds}")
    lines += ["m=video 0 RTP/AVP 96", f"a=rtpmap:96 MP4V-ES/{CLOCK}", "a=control:track"]
    return "\r\n".join([*lines, ""])


def _packets(frames: Sequence[bytes], ticks: int) -> Iterator[tuple[int, bytes]]:
    """Yield RTP packets, each with its channel; the last of a frame is marked."""
    number = 0
    for index, frame in enumerate(frames):
        for start in range(0, len(frame), PAYLOAD_BYTES):
            last = start + PAYLOAD_BYTES >= len(frame)
            header = struct.pack(
                "!BBHII", 0x80, 96 | last << 7, number % (1 << 16), index * ticks, 0
            )
            yield 0, header + frame[start : start + PAYLOAD_BYTES]
            number += 1
