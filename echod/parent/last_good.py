"""The settings in effect, kept in systemd's descriptor store for a restart into a configuration that is wrong.

Such a start would leave with status 78, and systemd would close the listening sockets and all connections that it keeps
for it: one slip in a file, and every client is lost.  So the next echod goes on by the settings that served last, and
says why.  After a stop there is nothing to go on with, and it does leave.
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


def keep(settings: Settings, fdstore: DescriptorStore) -> None:
    """Have systemd keep `settings`, as TOML, in place of those before.

    Not if there is no memory or no descriptor for them, nor if TOML can't hold them, as the path of a unix socket that
    is no text: then a wrong configuration ends the next echod.
    """
    try:
        data = as_toml(settings, {}).encode()
        fd = os.memfd_create(STORED_AS, os.MFD_CLOEXEC)
    except (OSError, UnicodeEncodeError):
        fdstore.remove(STORED_AS)
        return
    with os.fdopen(fd, "wb") as memory:
        memory.write(data)
        memory.flush()
        fdstore.remove(STORED_AS)
        fdstore.put(STORED_AS, [memory.fileno()])


def read_or_go_on(read: Callable[[], Loaded], kept: Sequence[int]) -> tuple[Loaded, list[str]]:
    """What `read` returns; or where it raises `ConfigError`, the settings in the descriptors `kept`, and the problems.

    Raises it if there are none there, or none that are right for this version.  The descriptors are closed.
    """
    try:
        return read(), []
    except ConfigError as error:
        for fd in kept:
            with contextlib.suppress(ConfigError):
                # Neither the environment nor flags: what is wrong may be there, and these settings are whole.
                loaded = load(f"/proc/self/fd/{fd}", {}, {})
                return Loaded(loaded.settings, {}, [], []), list(error.problems)
        raise
    finally:
        for fd in kept:
            with contextlib.suppress(OSError):
                os.close(fd)
