"""The settings in effect, kept in systemd's descriptor store for a restart into a wrong configuration.

Such a start would exit with status 78, and systemd would close the listening sockets and all connections that it keeps
for echod: one slip in a file, and every client is lost.  So the next echod continues with the settings that served
last, and logs why.  After a stop there is nothing to continue with, and the next echod does exit.
"""

import contextlib
import os
from collections.abc import Callable, Sequence

from echod.config.settings import Settings, as_toml
from echod.config.sources import Loaded, load
from echod.errors import ConfigError
from echod.systemd.fdstore import DescriptorStore

STORED_AS = "echod-settings"
"""The name of the memfd in the store."""


def keep(settings: Settings, store: DescriptorStore) -> None:
    """Store `settings` as TOML, in place of earlier ones.

    They are not stored if there is no memory or no descriptor left, nor if TOML cannot hold them, such as the path of
    a unix socket that is not text; then a wrong configuration ends the next echod.
    """
    try:
        data = as_toml(settings, {}).encode()
        fd = os.memfd_create(STORED_AS, os.MFD_CLOEXEC)
    except (OSError, UnicodeEncodeError):
        store.remove(STORED_AS)
        return
    with os.fdopen(fd, "wb") as memory:
        memory.write(data)
        memory.flush()
        store.remove(STORED_AS)
        store.put(STORED_AS, [memory.fileno()])


def read_or_continue(read: Callable[[], Loaded], kept: Sequence[int]) -> tuple[Loaded, list[str]]:
    """What `read` returns; or, if it raises `ConfigError`, the settings in the descriptors `kept`, and the problems.

    Raises that error if there are no such settings, or none that are valid in this version.  Closes the descriptors.
    """
    try:
        return read(), []
    except ConfigError as error:
        for fd in kept:
            with contextlib.suppress(ConfigError):
                # Without environment and flags: one of them may be what is wrong, and the stored settings are complete.
                loaded = load(f"/proc/self/fd/{fd}", {}, {})
                return Loaded(loaded.settings, {}, [], []), list(error.problems)
        raise
    finally:
        for fd in kept:
            with contextlib.suppress(OSError):
                os.close(fd)
