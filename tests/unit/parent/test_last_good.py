"""last_good: settings on their way to the next echod, and when that goes on by them."""

import os
from contextlib import closing

import pytest

from echod.config.settings import Settings
from echod.config.sources import Loaded
from echod.errors import ConfigError
from echod.parent import last_good
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier


def memfd(text: str) -> int:
    """As systemd passes it."""
    fd = os.memfd_create("settings")
    os.write(fd, text.encode())
    return fd


def wrong() -> Loaded:
    """A configuration that is."""
    raise ConfigError("a problem", "another")


def test_what_is_right_is_taken() -> None:
    """Then nothing else is looked at, and what was kept is closed."""
    right = Loaded(Settings(), {}, [], [])
    fd = memfd("nonsense")
    assert last_good.read_or_continue(lambda: right, [fd]) == (right, [])
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_is_wrong_is_told() -> None:
    """In its place come the settings that were kept, and neither the environment nor a file adds to them."""
    loaded, problems = last_good.read_or_continue(wrong, [memfd("port = 7\n")])
    assert (loaded.settings, problems) == (Settings(port=7), ["a problem", "another"])


@pytest.mark.parametrize("kept", [[], ["port = 'seven'\n"], ["no_such_key = 1\n", "nonsense"]])
def test_nothing_to_go_on_by(kept: list[str]) -> None:
    """Without settings that are right for this version the problems stand."""
    with pytest.raises(ConfigError, match="a problem"):
        last_good.read_or_continue(wrong, list(map(memfd, kept)))


@pytest.mark.parametrize("host", ["localhost", "unix:/\udcff"])
def test_without_systemd_nothing_is_kept(host: str) -> None:
    """And nothing is left open; nor does it matter whether the settings could be written down."""
    with closing(Notifier({})) as notifier:
        last_good.keep(Settings(host=(host,)), DescriptorStore(notifier))
