"""last_good: the stored settings, and when the next echod continues with them."""

import os
from contextlib import closing

import pytest

from echod.config.settings import Settings
from echod.config.sources import Loaded
from echod.parent import last_good
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier


def memfd(text: str) -> int:
    """A memfd with these contents, as systemd passes it."""
    fd = os.memfd_create("settings")
    os.write(fd, text.encode())
    return fd


def test_stored() -> None:
    """The stored settings have no origins and no files, and their descriptor is closed."""
    fd = memfd("port = 7\n")
    assert last_good.stored([fd]) == Loaded(Settings(port=7), {}, [], [])
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize("kept", [[], ["port = 'seven'\n"], ["no_such_key = 1\n", "nonsense"]])
def test_nothing_to_go_on_by(kept: list[str]) -> None:
    """Settings that are invalid in this version are left out."""
    assert last_good.stored(list(map(memfd, kept))) is None


@pytest.mark.parametrize("host", ["localhost", "unix:/\udcff"])
def test_without_systemd_nothing_is_kept(host: str) -> None:
    """Nothing is stored or left open, whether or not TOML can hold the settings."""
    with closing(Notifier({})) as notifier:
        last_good.keep(Settings(host=(host,)), DescriptorStore(notifier))
