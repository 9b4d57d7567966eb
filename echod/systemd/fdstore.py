"""systemd's file descriptor store (FileDescriptorStoreMax=, sd_notify(3)).

The next process of the service gets the stored descriptors (`listen_fds`), each with the name under which it was
stored.  So listening sockets, connections and settings survive a restart or a crash.  When the service stops, systemd
closes them.  Without systemd, or without a store, nothing is stored, and only `DescriptorStore.keeps` shows that.
"""

import os
import select
from collections.abc import Sequence

from echod.systemd.notify import Notifier, is_ready

OURS = "echod-"
"""The beginning of every name under which any version of echod stores descriptors; later ones may use more names."""
PROBE = OURS + "probe"
"""The name of the pipe with which `DescriptorStore.keeps` tests the store."""
ANSWER_WAIT = 3.0
"""Seconds to wait until systemd has processed all messages.  Without its answer the connections are not handed over, so
they end.  A stop waits for it at most three times, within TimeoutStopSec=."""

_FDS_MAX = 253
"""Descriptors in one message (SCM_MAX_FD, unix(7))."""


class DescriptorStore:
    """Adds descriptors to the store and removes them from it; all messages go through `notifier`.

    Each message may block as long as `Notifier.send_fds`, and `keeps` up to `ANSWER_WAIT` longer.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def put(self, name: str, fds: Sequence[int]) -> None:
        """Make systemd store copies of `fds` under `name`; the caller keeps its own.

        systemd compares a new descriptor with the stored ones, and does not store the same one twice.
        """
        for start in range(0, len(fds), _FDS_MAX):
            # FDPOLL=0: otherwise systemd drops a connection whose client has closed it, and no process logs its end.
            self._notifier.send_fds(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds[start : start + _FDS_MAX])

    def remove(self, name: str) -> None:
        """Make systemd close its copies of all descriptors that are stored under `name`."""
        self._notifier.send_fds(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def keeps(self) -> bool:
        """Whether systemd stores descriptors; if so, it has stored all descriptors of earlier `put` calls.  May block.

        systemd 252 does not answer FDSTORE=1.  But it closes a descriptor that it does not store, and if that was one
        end of a pipe, the other end shows it.
        """
        read, write = os.pipe()
        try:
            self.put(PROBE, [write])
            os.close(write)
            kept = self._barrier() and not is_ready(read, select.POLLIN, 0)
        finally:
            os.close(read)
        if kept:
            self.remove(PROBE)
        return kept

    def _barrier(self) -> bool:
        """Wait until systemd has processed all messages; False without systemd, or if it takes over `ANSWER_WAIT`.

        systemd closes the pipe that comes with BARRIER=1 once it has processed the messages before
        (sd_notify_barrier(3)).
        """
        read, write = os.pipe()
        try:
            sent = self._notifier.send_fds("BARRIER=1", [write])
            os.close(write)
            return sent and is_ready(read, select.POLLIN, ANSWER_WAIT)
        finally:
            os.close(read)
