"""Bodies that come compressed although nobody asked for it, as they were before (RFC 9110, 8.4.1)."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.provider import Chunks

ENCODINGS = (b"gzip", b"x-gzip", b"deflate")
MOST_CHUNK_BYTES = 256 * 1024
"""A chunk is no larger, however much it unpacks to: who reads bounds the whole."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Inflated:
    """The chunks of a compressed body, unpacked. failed: makes what is raised."""

    def __init__(self, packed: Chunks, encoding: bytes, failed: Callable[[str, ErrorCategory], UpstreamError]):
        self._packed = packed
        self._arriving = aiter(packed)
        self._failed = failed
        self._gzip = encoding != b"deflate"
        self._left, self._more = b"", False
        self._unpacker: zlib._Decompress | None = None

    def __aiter__(self) -> Inflated:
        return self

    async def __anext__(self) -> bytes:
        while True:
            while self._left or self._more:
                if chunk := await self._unpack():
                    return chunk
            try:
                self._left = await anext(self._arriving)
            except StopAsyncIteration:
                if self._unpacker is not None:
                    why = "the compressed body has no end"
                    raise self._failed(why, ErrorCategory.RESPONSE_MALFORMED) from None
                raise

    async def aclose(self) -> None:
        """Break it off, unless all of it is there."""
        self._left, self._more, self._unpacker = b"", False, None
        await self._packed.aclose()

    async def _unpack(self) -> bytes:
        """The next of what has come."""
        if self._unpacker is None:
            # What servers call deflate is zlib's format or, wrongly, the bare stream: its first byte tells.
            other = _ZLIB if self._left[0] & 0x0F == 8 else _RAW
            self._unpacker = zlib.decompressobj(_GZIP if self._gzip else other)
        try:
            chunk = self._unpacker.decompress(self._left, MOST_CHUNK_BYTES)
        except zlib.error as exc:
            await self.aclose()
            raise self._failed(f"not what its content-encoding says: {exc}", ErrorCategory.RESPONSE_MALFORMED) from exc
        self._left = self._unpacker.unconsumed_tail
        self._more = len(chunk) == MOST_CHUNK_BYTES  # it may hold some that it found no room for
        if self._unpacker.eof:
            self._left, self._more, self._unpacker = self._unpacker.unused_data, False, None
        return chunk
