"""The engine process's end of the socket: whole frames in and out, without threads.

A frame is a little-endian 32-bit length and so many bytes.
"""

from __future__ import annotations

import select
import socket
import struct

from runtime.server.messages import FromEngine, ToEngine, decode_to_engine, encode

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 1 << 28
"""More is not a frame but a mistake."""

_CHUNK_BYTES = 1 << 18


def frame(data: bytes) -> bytes:
    """Put the length before the bytes."""
    assert len(data) <= MAX_FRAME_BYTES, f"a message of {len(data)} bytes"
    return LENGTH.pack(len(data)) + data


class ChannelClosedError(Exception):
    """The front end is gone; there is nobody left to serve."""


class EngineChannel:
    """Blocking or polling receipt, blocking sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(True)
        self._buffer = bytearray()

    def send(self, message: FromEngine) -> None:
        """Send one message; waits while the front end is behind.

        Raises:
            ChannelClosedError: there is no front end any more.
        """
        try:
            self._socket.sendall(frame(encode(message)))
        except OSError as error:
            raise ChannelClosedError(str(error)) from error

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """Take what has arrived.

        Args:
            wait: until there is at least one message.

        Raises:
            ChannelClosedError: the front end has closed its end, or died.
        """
        messages: list[ToEngine] = []
        while True:
            messages.extend(self._take_frames())
            # Half a frame is followed by its other half at once, so it is worth the wait.
            is_due = (wait and not messages) or bool(self._buffer)
            if not is_due and not select.select([self._socket], [], [], 0)[0]:
                return messages
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if not data:
                raise ChannelClosedError("end of stream")
            self._buffer += data

    def _take_frames(self) -> list[ToEngine]:
        found: list[ToEngine] = []
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer, start)
            end = start + LENGTH.size + size
            if len(self._buffer) < end:
                break
            found.append(decode_to_engine(bytes(self._buffer[start + LENGTH.size : end])))
            start = end
        if start:
            del self._buffer[:start]
        return found
