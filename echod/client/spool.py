"""A queue of bytes, the end of which is on disk: what was sent and has not come back, for the comparison.

A server may return nothing until it has read everything, so the queue has no upper bound; if echoc stopped sending
until the queue shrank, it would deadlock with such a server.  The first mebibyte is in memory, the rest in unnamed
files in the directory for temporary files (TMPDIR).  Reading the input a second time was rejected: a pipe cannot be
read twice, and a file that changes meanwhile would look like a wrong echo.
"""

import os
from collections import deque

from echod.client.errors import UntestableError, reason

_MEMORY = 1024 * 1024
_SEGMENT = 64 * 1024 * 1024
_REFILL = 256 * 1024


class Spool:
    """A queue of bytes: at most `memory` bytes and 256 KiB in memory, the rest on disk.

    On disk the queue is cut into files of about `segment` bytes, so that space is freed as the queue advances; a single
    file would grow to the size of everything ever sent.
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
            self._write(data)
        self._length += len(data)

    def head(self, count: int) -> bytearray:
        """The queue's own buffer, which begins with the first `count` bytes, or with all if there are fewer.

        It must not be changed, and is valid until another method is called.
        """
        while self._tail and len(self._head) < count:
            self._head += self._tail[0].read(_REFILL)
            if self._tail[0].unread == 0:
                self._tail.popleft().close()
        return self._head

    def discard(self, count: int) -> None:
        """Remove the first `count` bytes, which `head` has returned."""
        del self._head[:count]
        self._length -= count

    def close(self) -> None:
        """Close, and so delete, the files."""
        while self._tail:
            self._tail.popleft().close()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            if not self._tail or self._tail[-1].size >= self._segment:
                self._tail.append(_Segment())
            self._tail[-1].write(data)
        except OSError as error:
            raise UntestableError(
                f"cannot store the bytes sent on disk, for the comparison with the echo: {reason(error)}"
            ) from error


class _Segment:
    """One unnamed file, written at its end and read from its beginning."""

    def __init__(self) -> None:
        # Imported here: it costs as much as all the rest of echoc's start, and few runs need it.
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
