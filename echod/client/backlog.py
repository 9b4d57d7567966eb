"""The bytes that were sent and have not come back: what the echo is compared with.

A server may return nothing before it has read everything, so this has no upper bound, and waiting with
sending until it shrinks would deadlock with such a server.  Memory holds the first mebibyte; the rest goes
to unnamed files in the directory for temporary files (TMPDIR).  Reading the input a second time was
rejected: a pipe can't be, and a file that changes meanwhile would look like a wrong echo.
"""

import os
from collections import deque

from echod.client.faults import UntestableError, reason

_MEMORY = 1024 * 1024
_SEGMENT = 64 * 1024 * 1024
_REFILL = 256 * 1024


class Backlog:
    """A queue of bytes: at most `memory` bytes and 256 KiB in memory, the rest on disk.

    On disk the queue is cut into files of about `segment` bytes, so that space is given back while the queue
    moves on; one file would grow with all that was ever sent.
    """

    def __init__(self, memory: int = _MEMORY, segment: int = _SEGMENT) -> None:
        self._memory = memory
        self._segment = segment
        self._head = bytearray()
        self._tail: deque[_Segment] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes | memoryview) -> None:
        """Add `data` at the end.  Raises UntestableError when there is no room on disk."""
        if not self._tail and len(self._head) + len(data) <= self._memory:
            self._head += data
        else:
            self._spill(data)
        self._length += len(data)

    def begins_with(self, data: bytes | memoryview) -> bool:
        """Whether `data` is what comes first."""
        self._fetch(len(data))
        return self._head.startswith(data)

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, or all where there are fewer."""
        self._fetch(count)
        return bytes(self._head[:count])

    def _fetch(self, count: int) -> None:
        while self._tail and len(self._head) < count:
            self._head += self._tail[0].read(_REFILL)
            if self._tail[0].unread == 0:
                self._tail.popleft().close()

    def discard(self, count: int) -> None:
        """Drop the first `count` bytes, which `peek` has shown."""
        del self._head[:count]
        self._length -= count

    def close(self) -> None:
        """Give the files back."""
        while self._tail:
            self._tail.popleft().close()

    def _spill(self, data: bytes | memoryview) -> None:
        try:
            if not self._tail or self._tail[-1].size >= self._segment:
                self._tail.append(_Segment())
            self._tail[-1].write(data)
        except OSError as error:
            raise UntestableError(
                f"cannot keep on disk what was sent, to compare the echo with: {reason(error)}"
            ) from error


class _Segment:
    """One unnamed file, written at its end and read from its beginning."""

    def __init__(self) -> None:
        # Imported here because it costs as much as all the rest of echoc's start, and few runs need it.
        from tempfile import mkstemp

        self._descriptor, path = mkstemp()
        os.unlink(path)
        self._read = 0
        self.size = 0

    @property
    def unread(self) -> int:
        return self.size - self._read

    def write(self, data: bytes | memoryview) -> None:
        while data:
            written = os.write(self._descriptor, data)
            self.size += written
            data = data[written:]

    def read(self, count: int) -> bytes:
        data = os.pread(self._descriptor, count, self._read)
        self._read += len(data)
        return data

    def close(self) -> None:
        os.close(self._descriptor)
