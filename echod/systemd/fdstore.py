"""systemd's file descriptor store (FileDescriptorStoreMax=, sd_notify(3)).

The next process of the service gets the stored descriptors (`listen_fds`), each under the name that it was stored
under.  So listening sockets, connections and settings outlive a restart or a crash.  When the service is to be stopped,
systemd closes them.  Without systemd, or without a store, nothing is stored, and only `DescriptorStore.keeps` shows it.
"""

import os
import select
from collections.abc import Sequence

from echod.systemd.notify import Notifier, is_ready

OURS = "echod-"
"""The beginning of every name that echod stores anything under; another version may use more names than this one."""
PROBE = OURS + "probe"
"""The name of the pipe by which `DescriptorStore.keeps` tests the store."""
ANSWER_WAIT = 3.0
"""Seconds to wait for systemd to have processed all messages.  Without its answer the connections are not handed over,
so they end.  A stop waits for it three times at most, within TimeoutStopSec=."""

_FDS_MAX = 253
"""Descriptors in one message (SCM_MAX_FD, unix(7))."""


class DescriptorStore:
    """Adds descriptors to the store and removes them from it; all messages go through `notifier`.

    Each message may block for as long as `Notifier.send_fds`, and `keeps` for `ANSWER_WAIT` more.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def put(self, name: str, fds: Sequence[int]) -> None:
        """Have systemd store copies of `fds` under `name`; the caller keeps its own.

        systemd compares a descriptor with those that it has, so one that is stored already is not stored twice.
        """
        for start in range(0, len(fds), _FDS_MAX):
            # FDPOLL=0: otherwise systemd drops a connection whose client has closed it, and no process logs its end.
            self._notifier.send_fds(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds[start : start + _FDS_MAX])

    def remove(self, name: str) -> None:
        """Have systemd close its copies of all descriptors that are stored under `name`."""
        self._notifier.send_fds(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def keeps(self) -> bool:
        """Whether systemd stores descriptors; if so, it has also stored all that were put before.  May block.

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
        """Wait until systemd has processed all messages; False if it is not there or takes longer than `ANSWER_WAIT`.

        It closes the pipe that comes with BARRIER=1 when it has processed what was sent before (sd_notify_barrier(3)).
        """
        read, write = os.pipe()
        try:
            sent = self._notifier.send_fds("BARRIER=1", [write])
            os.close(write)
            return sent and is_ready(read, select.POLLIN, ANSWER_WAIT)
        finally:
            os.close(read)
