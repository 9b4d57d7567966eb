"""last_good: the stored settings, and when the next echod continues with them."""

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
    """A memfd with these contents, as systemd passes it."""
    fd = os.memfd_create("settings")
    os.write(fd, text.encode())
    return fd


def wrong() -> Loaded:
    """Raise the error of an invalid configuration."""
    raise ConfigError("a problem", "another")


def test_what_is_right_is_taken() -> None:
    """A valid configuration is used, and the stored settings are closed unread."""
    right = Loaded(Settings(), {}, [], [])
    fd = memfd("nonsense")
    assert last_good.read_or_continue(lambda: right, [fd]) == (right, [])
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_is_wrong_is_told() -> None:
    """The stored settings replace an invalid configuration, without the environment and without files."""
    loaded, problems = last_good.read_or_continue(wrong, [memfd("port = 7\n")])
    assert (loaded.settings, problems) == (Settings(port=7), ["a problem", "another"])


@pytest.mark.parametrize("kept", [[], ["port = 'seven'\n"], ["no_such_key = 1\n", "nonsense"]])
def test_nothing_to_go_on_by(kept: list[str]) -> None:
    """Without stored settings that are valid in this version, the configuration's error is raised."""
    with pytest.raises(ConfigError, match="a problem"):
        last_good.read_or_continue(wrong, list(map(memfd, kept)))


@pytest.mark.parametrize("host", ["localhost", "unix:/\udcff"])
def test_without_systemd_nothing_is_kept(host: str) -> None:
    """Nothing is stored or left open, whether or not TOML can hold the settings."""
    with closing(Notifier({})) as notifier:
        last_good.keep(Settings(host=(host,)), DescriptorStore(notifier))
