"""reload: what new settings change."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from echod.config.settings import Key, keys
from echod.config.sources import Loaded, load
from echod.errors import CannotListen, ConfigError
from echod.log.events import LogOptions
from echod.net import address
from echod.net.address import Endpoint
from echod.net.sockopts import SocketOptions
from echod.parent.reload import LINGER, SLOW, Change, Configuration, Found, Process, Read, look_up, slow_lookup
from echod.systemd.fdstore import DescriptorStore
from echod.systemd.notify import Notifier

BESIDE = {"host", "port", "unix_mode", "workers"}
"""The keys that change something other than the terms."""
OTHER: dict[str, Any] = {
    "host": "::1",
    "port": 7,
    "unix_mode": "0600",
    "chunk_size": 3,
    "workers": 2,
    "handover": False,
    "limits.max_connections": 4,
    "limits.max_connections_per_source": 5,
    "limits.ipv6_source_prefix": 56,
    "limits.kernel_memory": 1 << 20,
    "limits.idle_timeout": 6,
    "limits.stall_timeout": 7,
    "limits.drain_timeout": 8,
    "limits.keepalive": 9,
    "limits.keepalive_interval": 10,
    "limits.keepalive_probes": 11,
    "log.level": "error",
    "log.format": "console",
    "log.connections": False,
    "log.payload": True,
}
"""A value other than the default for each key."""


class Flags:
    """A configuration that consists of flags, which change; `start` is the change at startup."""

    def __init__(self, *, activated: bool = False, descriptors: int = 1 << 20, **flags: Any) -> None:
        self.flags = flags
        self.configuration = configuration(self.load, activated=activated, descriptors=descriptors)
        self.start = self.reload()

    def read(self) -> Change:
        """Read the present flags, as the child process does, and pass the result on as the child does."""
        work, _ = self.configuration.reader()
        found = json.loads(json.dumps(work(lambda problem: None)))
        return self.configuration.change_to(Found.decode(found))

    def reload(self) -> Change:
        """Read the present flags, and commit them."""
        change = self.read()
        self.configuration.commit()
        return change

    def load(self, **_: Any) -> Loaded:
        """The settings of the present flags."""
        return load("/dev/null", {tuple(name.split(".")): value for name, value in self.flags.items()}, {})


def configuration(read: Read, *, activated: bool = False, descriptors: int = 1 << 20) -> Configuration:
    """A configuration without a descriptor store."""
    process = Process(descriptors=descriptors, tick=1.5, activated=activated, inherited=[])
    return Configuration(read, process, DescriptorStore(Notifier({})))


def test_each_key_has_another_value() -> None:
    """`OTHER` has a value for each key, so a new key is tested too."""
    assert sorted(OTHER) == sorted(key.name for key in keys())


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.name)
def test_each_key(key: Key) -> None:
    """Each key changes the terms, the number of workers, or the endpoints, and a second change restores them."""
    flags = Flags()
    start = flags.start
    assert (start.changed, start.overruled, start.warnings) == ([], [], [])
    flags.flags = {key.name: OTHER[key.name]}
    change = flags.reload()
    assert change.changed == [key.name]
    assert (change.terms == start.terms) == (key.name in BESIDE)
    assert (change.workers == 2) == (key.name == "workers")
    assert (change.endpoints is None) == (key.name not in {"host", "port"})
    again = flags.reload()
    assert (again.changed, again.endpoints) == ([], None)
    assert (again.terms, again.workers) == (change.terms, change.workers)
    flags.flags = {}
    back = flags.reload()
    assert back.changed == change.changed
    assert (replace(back.terms, sets_accepted_options=False), back.workers) == (start.terms, start.workers)


def test_where_to_listen_at_startup() -> None:
    """At startup the change has endpoints, although no setting has changed."""
    assert Flags(host="127.0.0.1").start.endpoints == [Endpoint(socket.AF_INET, "127.0.0.1")]
    assert Flags(host="127.0.0.1", activated=True).start.endpoints == []


def test_where_to_listen() -> None:
    """A change of host or port contains all endpoints and the port."""
    flags = Flags(host="127.0.0.1", port=1)
    flags.flags = {"host": "127.0.0.1", "port": 2}
    change = flags.reload()
    assert (change.endpoints, change.port) == ([Endpoint(socket.AF_INET, "127.0.0.1")], 2)


def test_a_name_that_does_not_resolve() -> None:
    """A name that does not resolve fails the reload."""
    flags = Flags()
    flags.flags = {"host": "name.invalid"}
    with pytest.raises(CannotListen, match="name.invalid"):
        flags.reload()


def test_terms() -> None:
    """Each value is in its field of the terms, in the units of the settings."""
    terms = Flags(**OTHER).start.terms
    assert (terms.chunk_size, terms.drain, terms.tick) == (3, 8, 1.5)
    assert (terms.timeouts.idle, terms.timeouts.stall, terms.timeouts.linger) == (6, 7, LINGER)
    assert terms.socket_options == SocketOptions(keepalive=9, interval=10, probes=11)
    assert (terms.max_connections, terms.max_per_source) == (4, 5)
    assert (terms.ipv6_prefix, terms.kernel_memory) == (56, 1 << 20)
    assert terms.log_options == LogOptions("error", "console", connections=False, payload=True)


@pytest.mark.parametrize("name", ["limits.keepalive", "limits.keepalive_interval", "limits.keepalive_probes"])
def test_other_tuning(name: str) -> None:
    """After a change of socket options, workers set them on accepted connections, even if the change is undone."""
    flags = Flags()
    assert not flags.start.terms.sets_accepted_options
    flags.flags = {"limits.idle_timeout": 6}
    assert not flags.reload().terms.sets_accepted_options
    for flags.flags in ({name: 8}, {}):
        assert flags.reload().terms.sets_accepted_options


def test_tuning_of_passed_sockets() -> None:
    """Connections in the queue of a passed socket may lack the socket options, so workers set them."""
    assert Flags(activated=True).start.terms.sets_accepted_options


def test_wrong() -> None:
    """An invalid configuration changes nothing, so the next one is compared with the one before it."""
    flags = Flags()
    flags.flags = {"chunk_size": 3, "port": "x"}
    with pytest.raises(ConfigError, match="--port is 'x', but must be "):
        flags.read()
    flags.flags = {"chunk_size": 3}
    assert flags.read().changed == ["chunk_size"]


def test_not_taken() -> None:
    """A valid configuration that was not committed changes nothing either."""
    flags = Flags()
    flags.flags = {"chunk_size": 3}
    for _ in range(2):
        assert flags.read().changed == ["chunk_size"]
    flags.configuration.commit()
    assert flags.read().changed == []


class TestOverruled:
    """Sockets that systemd passed override host and port."""

    def test_nothing_is_set(self) -> None:
        """Without host and port in the configuration, nothing is overridden and nothing is reported."""
        start = Flags(activated=True).start
        assert (start.overruled, start.warnings) == ([], [])

    def test_each_is_named_by_where_it_stands(self, tmp_path: Path) -> None:
        """The warning names each overridden setting by file and key, variable, or flag."""
        file = tmp_path / "echod.toml"
        file.write_text("host = '::1'")
        loaded = load(str(file), {}, {"ECHOD_PORT": "7"})
        start = configuration(lambda **_: loaded, activated=True).change_to(Found(loaded, []))
        assert start.overruled == ["host", "port"]
        assert start.warnings == [f"{file}: host and ECHOD_PORT are overridden by the sockets that systemd passed"]
        assert Flags(activated=True, host="::1").start.warnings == (
            ["--host is overridden by the sockets that systemd passed"]
        )

    def test_nothing_moves(self) -> None:
        """A change of host or port has no effect."""
        flags = Flags(activated=True)
        flags.flags = {"host": "::1", "port": 7, "workers": 2}
        change = flags.reload()
        assert (change.changed, change.endpoints, change.overruled) == (["workers"], None, ["host", "port"])
        assert len(change.warnings) == 1


@pytest.mark.parametrize(("wanted", "warnings"), [(360, 0), (361, 1)])
def test_too_few_descriptors(wanted: int, warnings: int) -> None:
    """A warning says if all workers together lack descriptors for `max_connections` connections."""
    flags = Flags(descriptors=100, workers=100)
    flags.flags = {"workers": 10, "limits.max_connections": wanted}
    assert len(flags.read().warnings) == warnings


@pytest.mark.parametrize("descriptors", [30, 64])
def test_hardly_any_descriptors(descriptors: int) -> None:
    """With fewer descriptors than a worker needs for itself, the warning has no negative number."""
    (warning,) = Flags(descriptors=descriptors).start.warnings
    assert warning == (
        "limits.max_connections is 10000, but the descriptor limit leaves hardly any descriptor for them; "
        f"raise LimitNOFILE= (ulimit -n), now {descriptors}, or lower limits.max_connections"
    )


class TestLookUp:
    """Looking up the hosts."""

    def test_every_problem_is_reported(self) -> None:
        """Each host without an address is a problem of its own."""
        with pytest.raises(CannotListen) as raised:
            look_up(["a..b", "127.0.0.1", "unix:relative"], lambda problem: None)
        assert [problem.split("'")[1] for problem in raised.value.problems] == ["a..b", "unix:relative"]

    def test_the_problem_if_time_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before each name is looked up, the report names it and the names after it, but no address."""
        monkeypatch.setattr(address, "resolve", lambda host: [])
        reported: list[str] = []
        look_up(["one.example", "::1", "two.example", "localhost"], lambda problem: reported.extend(problem.problems))
        end = "not resolve: the name servers have not answered within 20 s; "
        assert [problem.partition(end)[0] for problem in reported] == (
            ["hosts 'one.example' and 'two.example' do ", "host 'two.example' does "]
        )

    def test_slow(self) -> None:
        """A lookup that takes a second or more gives a warning with the names and the time."""
        assert slow_lookup(["one.example"], SLOW - 0.1) == slow_lookup([], 100) == []
        (warning,) = slow_lookup(["one.example"], SLOW)
        assert warning.startswith("resolving host 'one.example' took 1 s; after 20 s, a start or reload fails; ")
