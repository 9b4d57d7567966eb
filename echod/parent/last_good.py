"""The settings in effect, kept in systemd's descriptor store with the listening sockets, for the next echod.

The next echod continues with both, and reads its configuration after that, as at a reload.  If it read first, a slow
name server would delay every connection, and one mistake (exit status 69 or 78) would make systemd close the sockets
and the connections that it keeps.  After a stop nothing is stored, and a start with a mistake fails.
"""

import contextlib
import os
from collections.abc import Sequence

from echod.config.settings import Settings, as_toml
from echod.config.sources import Loaded, load
from echod.errors import ConfigError
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-settings"
"""The name of the memfd in the store."""


def keep(settings: Settings, store: DescriptorStore) -> None:
    """Store `settings` as TOML, in place of earlier ones.

    They are not stored if there is no memory or descriptor left, or if TOML cannot hold them, such as the path of a
    unix socket that is not valid UTF-8; then an invalid configuration makes the next start fail.
    """
    store.remove(STORED_AS)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        data = as_toml(settings, {}).encode()
        with os.fdopen(os.memfd_create(STORED_AS, os.MFD_CLOEXEC), "wb", buffering=0) as memory:
            if memory.write(data) == len(data):
                store.put(STORED_AS, [memory.fileno()])


def stored(kept: Sequence[int]) -> Loaded | None:
    """The settings in the descriptors `kept`, which are closed; None if none of them has settings of this version."""
    found = None
    for fd in kept:
        with contextlib.suppress(ConfigError):
            # Without environment and flags, because the stored settings are complete.
            loaded = load(f"/proc/self/fd/{fd}", {}, {})
            found = Loaded(loaded.settings, {}, [], [])
        with contextlib.suppress(OSError):
            os.close(fd)
    return found
