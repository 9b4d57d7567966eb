"""address: the endpoints of each form of host, and how addresses are shown and counted."""

import ipaddress
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.errors import CannotListen
from echod.net.address import UNIX_PATH_MAX, Endpoint, endpoints, ends, resolve, show, source

V4 = socket.AF_INET
V6 = socket.AF_INET6
UNIX = socket.AF_UNIX

EVERY_V4 = Endpoint(V4, "0.0.0.0")
EVERY_V6 = Endpoint(V6, "::")
LOCAL_V4 = Endpoint(V4, "127.0.0.1")
LOCAL_V6 = Endpoint(V6, "::1")

UNRESOLVABLE = ".".join(["label"] * 60)
"""Longer than the 255 bytes of a name (RFC 1035 section 2.3.4): it fails without a query."""

ipv4_addresses = st.ip_addresses(v=4).map(str)
ipv6_addresses = st.ip_addresses(v=6)


def as_the_kernel_writes(address: ipaddress.IPv6Address) -> str:
    """The text that accept(2) returns in Python, which is not always that of `ipaddress`."""
    return socket.inet_ntop(V6, address.packed)


class TestResolve:
    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("", [EVERY_V4, EVERY_V6]),
            ("0.0.0.0", [EVERY_V4]),
            ("::", [EVERY_V6]),
            ("localhost", [LOCAL_V4, LOCAL_V6]),
            ("LocalHost.", [LOCAL_V4, LOCAL_V6]),
            ("echo.localhost", [LOCAL_V4, LOCAL_V6]),
            ("127.0.0.1", [LOCAL_V4]),
            ("192.0.2.7", [Endpoint(V4, "192.0.2.7")]),
            ("::1", [LOCAL_V6]),
            ("2001:db8:0::7", [Endpoint(V6, "2001:db8::7")]),
            ("fe80::1%lo", [Endpoint(V6, "fe80::1", socket.if_nametoindex("lo"))]),
            ("unix:/run/echod.sock", [Endpoint(UNIX, "/run/echod.sock")]),
            ("unix:@echod", [Endpoint(UNIX, "\0echod")]),
        ],
    )
    def test_every_form(self, host: str, expected: list[Endpoint]) -> None:
        """Each form of the configuration has these endpoints, in this order."""
        assert resolve(host) == expected

    def test_localhost_is_not_looked_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No resolver is asked for localhost (RFC 6761 section 6.3)."""
        monkeypatch.delattr(socket, "getaddrinfo")
        assert resolve("localhost") == [LOCAL_V4, LOCAL_V6]

    def test_a_name_is_every_address_that_it_resolves_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name has an endpoint for each of its addresses, IPv4 and IPv6."""
        found = [
            (V6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
            (V6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 0, 0, 2)),
            (V4, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert resolve("echo.example") == [
            Endpoint(V6, "2001:db8::1"),
            Endpoint(V6, "fe80::1", 2),
            Endpoint(V4, "192.0.2.1"),
        ]

    @pytest.mark.parametrize(
        ("host", "problem"),
        [
            ("::ffff:127.0.0.1", "is an IPv4 address in the form of an IPv6 address; write 127.0.0.1"),
            ("::FFFF:0:0", "is an IPv4 address in the form of an IPv6 address; write 0.0.0.0"),
            ("224.0.0.1", "is a multicast address, to which no client can connect; use an address of this machine"),
            ("ff02::1%lo", "is a multicast address, to which no client can connect; use an address of this machine"),
            (
                "255.255.255.255",
                "is the broadcast address, to which no client can connect; use an address of this mach",
            ),
            ("0", "is an ambiguous form of 0.0.0.0; write all four numbers in decimal, or a host name"),
            ("127.1", "is an ambiguous form of 127.0.0.1; write all four numbers in decimal, or a host name"),
            ("0x7f.1", "is an ambiguous form of 127.0.0.1; write all four numbers in decimal, or a host name"),
            ("2130706433", "is an ambiguous form of 127.0.0.1; write all four numbers in decimal, or a host name"),
            ("010.0.0.1", "is an ambiguous form of 8.0.0.1; write all four numbers in decimal, or a host name"),
        ],
    )
    def test_a_refused_address(self, host: str, problem: str) -> None:
        """An address that would open another one, or that no client could reach, is refused by its name."""
        with pytest.raises(CannotListen) as caught:
            resolve(host)
        (sentence,) = caught.value.problems
        assert sentence.startswith(f"host {host!r} {problem}")

    @pytest.mark.parametrize(
        ("family", "address", "problem"),
        [
            (V4, "0.0.0.0", "means every address of this machine; write 0.0.0.0 if that is intended"),
            (V6, "::", "means every address of this machine; write :: if that is intended"),
            (V6, "::ffff:192.0.2.1", "is an IPv4 address in the form of an IPv6 address; write 192.0.2.1"),
            (V4, "239.1.1.1", "is a multicast address, to which no client can connect; use an address of this machine"),
        ],
    )
    def test_a_name_of_a_refused_address(
        self, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, address: str, problem: str
    ) -> None:
        """A name that resolves to such an address is refused; some name servers block a name by answering 0.0.0.0."""
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, 1, 6, "", (address, 0))])
        with pytest.raises(CannotListen) as caught:
            resolve("echo.example")
        assert caught.value.problems == (f"host 'echo.example' resolves to {address}, which {problem}",)

    @pytest.mark.parametrize("host", [UNRESOLVABLE, "no..such..name", "l" * 64, "\udcff"])
    def test_a_name_that_does_not_resolve(self, host: str) -> None:
        """The sentence names the host and a valid alternative."""
        with pytest.raises(CannotListen) as caught:
            resolve(host)
        (problem,) = caught.value.problems
        assert problem.startswith(f"host {host!r} does not resolve: ")
        assert problem.endswith("; use an address of this machine or a name that resolves to one")

    @pytest.mark.parametrize("host", ["unix:", "unix:echod.sock", "unix:@", "unix:/a\0b"])
    def test_an_invalid_unix_address(self, host: str) -> None:
        """A path must be absolute, a name must not be empty, and neither may contain a NUL."""
        with pytest.raises(CannotListen, match="is not a unix socket; write unix:/absolute/path or unix:@name"):
            resolve(host)

    @pytest.mark.parametrize("first", ["/", "@"])
    def test_the_longest_unix_address(self, first: str) -> None:
        """The limit is in bytes: the kernel accepts the longest address that is valid."""
        longest = first + "é" * 53
        assert len(os.fsencode(longest)) == UNIX_PATH_MAX
        assert resolve(f"unix:{longest}")[0].family == UNIX
        with pytest.raises(CannotListen, match=f"too long for a unix socket; at most {UNIX_PATH_MAX} bytes"):
            resolve(f"unix:{longest}x")

    def test_the_kernel_takes_the_longest_name(self) -> None:
        """A socket binds to the longest abstract name."""
        with socket.socket(UNIX) as sock:
            sock.bind(resolve("unix:@" + str(os.getpid()).zfill(UNIX_PATH_MAX - 1))[0].sockaddr(0))


class TestEndpoints:
    @pytest.mark.parametrize(
        ("hosts", "expected"),
        [
            (["127.0.0.1", "127.0.0.1"], [LOCAL_V4]),
            (["localhost", "::1"], [LOCAL_V4, LOCAL_V6]),
            (["0.0.0.0", "127.0.0.1"], [EVERY_V4]),
            (["127.0.0.1", "0.0.0.0"], [EVERY_V4]),
            (["127.0.0.1", "::"], [LOCAL_V4, EVERY_V6]),
            (["127.0.0.1", "::1", "unix:@a", ""], [Endpoint(UNIX, "\0a"), EVERY_V4, EVERY_V6]),
            (["fe80::1%lo", "fe80::1"], [Endpoint(V6, "fe80::1", 1), Endpoint(V6, "fe80::1")]),
            ([], []),
        ],
    )
    def test_one_that_another_covers_is_left_out(self, hosts: list[str], expected: list[Endpoint]) -> None:
        """A wildcard address covers the others of its family, before or after it; the order stays."""
        assert endpoints(hosts) == expected

    @given(st.lists(st.sampled_from(["", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1", "unix:@a", "192.0.2.1"])))
    def test_none_covers_another(self, hosts: list[str]) -> None:
        """Every requested address is covered, and no endpoint covers another."""
        kept = endpoints(hosts)
        assert not any(a.covers(b) for a in kept for b in kept if a is not b)
        assert all(any(a.covers(wanted) for a in kept) for host in hosts for wanted in resolve(host))

    @pytest.mark.parametrize("hosts", [["localhost", "::1"], ["::1", "localhost"]])
    def test_an_address_beside_a_word_is_not_optional(self, hosts: list[str]) -> None:
        """An address of a word may be missing on this machine; one that is configured by itself is missed then."""
        optional = {endpoint.address: endpoint.optional for endpoint in endpoints(hosts)}
        assert optional == {"127.0.0.1": True, "::1": False}

    def test_one_host_that_does_not_resolve(self) -> None:
        """One bad host among good ones is an error."""
        with pytest.raises(CannotListen, match="does not resolve"):
            endpoints(["localhost", UNRESOLVABLE])


class TestSockaddr:
    @pytest.mark.parametrize(
        ("endpoint", "expected"),
        [
            (LOCAL_V4, ("127.0.0.1", 7)),
            (Endpoint(V6, "fe80::1", 3), ("fe80::1", 7, 0, 3)),
            (Endpoint(UNIX, "/run/echod.sock"), "/run/echod.sock"),
        ],
    )
    def test_it_is_what_bind_takes(self, endpoint: Endpoint, expected: object) -> None:
        """A pair for IPv4, four values for IPv6, and for a unix socket a string without a port."""
        assert endpoint.sockaddr(7) == expected


class TestShow:
    @pytest.mark.parametrize(
        ("sockaddr", "expected"),
        [
            (("127.0.0.1", 7), "127.0.0.1:7"),
            (("::1", 7, 0, 0), "[::1]:7"),
            (("fe80::1%eth0", 7, 0, 2), "[fe80::1%eth0]:7"),
            (("fe80::1", 7, 0, socket.if_nametoindex("lo")), "[fe80::1%lo]:7"),
            (("fe80::1", 7, 0, 1 << 30), "[fe80::1%1073741824]:7"),
            (("::ffff:192.0.2.1", 7, 0, 0), "192.0.2.1:7"),
            (("::ffff:0:102:304", 7, 0, 0), "[::ffff:0:102:304]:7"),
            ("/run/echod.sock", "unix:/run/echod.sock"),
            (b"\0echod", "unix:@echod"),
            ("\0other", "unix:@other"),
            ("", "unix:"),
            (b"\0\xff", "unix:@\udcff"),
        ],
    )
    def test_every_form(self, sockaddr: object, expected: str) -> None:
        """Each address has its usual form; an IPv4 peer of an IPv6 socket looks like IPv4."""
        assert show(sockaddr) == expected

    @given(ipv6_addresses, st.integers(0, 65535))
    def test_a_port_can_be_told_from_an_address(self, address: ipaddress.IPv6Address, port: int) -> None:
        """Address and port can be parsed back from the text, for every address."""
        host, _, shown_port = show((as_the_kernel_writes(address), port, 0, 0)).rpartition(":")
        assert int(shown_port) == port
        read = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        assert read in (address, address.ipv4_mapped)

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "::1", f"unix:@echod-test-{os.getpid()}"], ids=["IPv4", "IPv6", "unix"]
    )
    def test_a_real_socket(self, host: str) -> None:
        """The name of a bound socket (getsockname(2)) is shown as the address that it was bound to."""
        (endpoint,) = resolve(host)
        with socket.socket(endpoint.family) as sock:
            try:
                sock.bind(endpoint.sockaddr(0))
            except OSError as error:
                pytest.skip(f"no {endpoint.family.name} here: {error.strerror}")
            port = "" if endpoint.family == UNIX else f":{sock.getsockname()[1]}"
            assert show(sock.getsockname()) == (f"[{host}]" if host == "::1" else host) + port


class TestEnds:
    def test_our_end_is_known(self) -> None:
        """A local address that the caller knows is shown as it is, and not read from the socket."""
        with socket.socket() as sock:
            assert ends(sock, ("192.0.2.1", 7), "192.0.2.2:7") == {"peer": "192.0.2.1:7", "local": "192.0.2.2:7"}
            assert ends(sock, ("192.0.2.1", 7)) == {"peer": "192.0.2.1:7", "local": "0.0.0.0:0"}


class TestSource:
    @given(ipv4_addresses, ipv4_addresses)
    def test_ipv4_counts_by_address(self, one: str, other: str) -> None:
        """Two addresses are two sources."""
        assert (source((one, 1), 64) == source((other, 2), 64)) == (one == other)

    @given(ipv4_addresses)
    def test_ipv4_on_an_ipv6_socket_is_ipv4(self, host: str) -> None:
        """A peer has the same number on an IPv4 and on an IPv6 socket."""
        assert source((f"::ffff:{host}", 1, 0, 0), 64) == source((host, 1), 64)

    @given(st.integers(0x2002 << 48, (0x4000 << 48) - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    def test_ipv6_counts_by_network(self, network: int, interface: int, other: int) -> None:
        """Every address of a /64 has the same number, and an address of another /64 has another."""

        def number(network: int, interface: int) -> int | None:
            host = as_the_kernel_writes(ipaddress.IPv6Address(network << 64 | interface))
            return source((host, 1, 0, 0), 64)

        assert number(network, interface) == number(network, other) != number(network ^ 1, interface)

    @given(st.one_of(ipv6_addresses, st.integers(0, 2**64).map(ipaddress.IPv6Address)))
    def test_the_number_is_fit_for_the_table(self, address: ipaddress.IPv6Address) -> None:
        """The number of a source is never 0 and below 2**64, also for ::, ::1 and addresses that only look mapped."""
        number = source((as_the_kernel_writes(address), 1, 0, 0), 64)
        assert number is not None
        assert 0 < number < 2**64

    def test_not_even_the_lowest_addresses_are_alike(self) -> None:
        """No IPv4 address has the number 0, or that of ::1."""
        numbers = [source(("0.0.0.0", 1), 64), source(("0.0.0.1", 1), 64), source(("::1", 1, 0, 0), 64)]
        assert None not in numbers
        assert len({0, *numbers}) == 4

    @given(ipv4_addresses, st.integers(2**61, 2**64 - 1))
    def test_the_two_kinds_never_meet(self, host: str, prefix: int) -> None:
        """No IPv4 address has the number of an IPv6 network from 2000::/3 up."""
        network = str(ipaddress.IPv6Address(prefix << 64))
        assert source((host, 1), 64) != source((network, 1, 0, 0), 64)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("fe80::1", 1, 0, 1), ("fe80::2", 1, 0, 1)),
            (("fe80::1", 1, 0, 1), ("fe80::1", 1, 0, 2)),
            (("64:ff9b::c000:201", 1, 0, 0), ("64:ff9b::c000:202", 1, 0, 0)),
            (("::ffff:0:c000:201", 1, 0, 0), ("::ffff:0:c000:202", 1, 0, 0)),
            (("64:ff9b:1::c000:201", 1, 0, 0), ("64:ff9b:1::c000:202", 1, 0, 0)),
            (("2001:0:5ef5:79fb::1", 1, 0, 0), ("2001:0:5ef5:79fb::2", 1, 0, 0)),
        ],
    )
    def test_strangers_in_one_network(self, one: object, other: object) -> None:
        """Two neighbours on a link, or two clients of one translator or tunnel, are two sources."""
        assert source(one, 64) != source(other, 64)

    @pytest.mark.parametrize("host", ["64:ff9b::c000:201", "::ffff:0:c000:201"])
    def test_translated_ipv4_is_ipv4(self, host: str) -> None:
        """A client behind NAT64 is the same source as with IPv4."""
        assert source((host, 1, 0, 0), 64) == source(("192.0.2.1", 1), 64)

    @pytest.mark.parametrize("prefix", [1, 48, 56, 64, 127, 128])
    def test_prefix(self, prefix: int) -> None:
        """Only the bits of the prefix count; the first bit behind it does not, and the last one in it does."""
        host = int(ipaddress.IPv6Address("2001:db8:1:2::1"))

        def number(changed: int) -> int | None:
            return source((as_the_kernel_writes(ipaddress.IPv6Address(host ^ changed)), 1, 0, 0), prefix)

        assert number(0) != number(1 << 128 - prefix)
        assert prefix == 128 or number(0) == number(1 << 127 - prefix)

    def test_a_unix_peer_has_none(self) -> None:
        """A client of a unix socket has no source."""
        assert source("", 64) is None
