"""echod.client.target."""

import socket

import pytest

from echod.client.errors import UntestableError
from echod.client.target import HOST_FORMS, parse_target
from echod.client.transport import Origin


@pytest.mark.parametrize(
    ("words", "host", "port", "written"),
    [
        ((None, None), "localhost", 10000, "localhost:10000"),
        (("echo.example", None), "echo.example", 10000, "echo.example:10000"),
        (("echo.example", "7"), "echo.example", 7, "echo.example:7"),
        (("echo.example:7", None), "echo.example", 7, "echo.example:7"),
        (("192.0.2.1:7", None), "192.0.2.1", 7, "192.0.2.1:7"),
        (("2001:db8::7", None), "2001:db8::7", 10000, "[2001:db8::7]:10000"),
        (("2001:db8::7", "7"), "2001:db8::7", 7, "[2001:db8::7]:7"),
        (("[2001:db8::7]", "7"), "2001:db8::7", 7, "[2001:db8::7]:7"),
        (("[2001:db8::7]:7", None), "2001:db8::7", 7, "[2001:db8::7]:7"),
        (("[fe80::1%eth0]:7", None), "fe80::1%eth0", 7, "[fe80::1%eth0]:7"),
        (("::1", None), "::1", 10000, "[::1]:10000"),
        (("unix:/run/echo.sock", None), "unix:/run/echo.sock", 0, "unix:/run/echo.sock"),
        (("unix:@echo:1", None), "unix:@echo:1", 0, "unix:@echo:1"),
        (("a\n\udcff", None), "a\n\udcff", 10000, "a\\n\\udcff:10000"),
    ],
)
def test_forms(words: tuple[str | None, str | None], host: str, port: int, written: str) -> None:
    """Every form of a host and a port is understood, and printed in one form."""
    target = parse_target(*words, environment={})
    assert (target.host, target.port, str(target)) == (host, port, written)


@pytest.mark.parametrize(
    ("environment", "words", "written"),
    [
        ({"ECHOC_HOST": "a", "ECHOC_PORT": "7"}, (None, None), "a:7"),
        ({"ECHOC_HOST": "a:8", "ECHOC_PORT": "7"}, (None, None), "a:8"),
        ({"ECHOC_HOST": "a:8", "ECHOC_PORT": "7"}, ("b", None), "b:7"),
        ({"ECHOC_HOST": "a", "ECHOC_PORT": "7"}, ("b", "9"), "b:9"),
        ({"ECHOC_PORT": "7"}, ("b:9", None), "b:9"),
        ({"ECHOC_HOST": "unix:/run/echo", "ECHOC_PORT": "7"}, (None, None), "unix:/run/echo"),
        ({"ECHOC_PORT": "tcp://10.0.0.1:7"}, ("a", None), "a:10000"),
        ({"ECHOC_HOST": "", "ECHOC_PORT": ""}, (None, None), "localhost:10000"),
    ],
)
def test_environment(environment: dict[str, str], words: tuple[str | None, str | None], written: str) -> None:
    """ECHOC_HOST and ECHOC_PORT are the defaults of HOST and PORT; an empty value counts as unset, and so does
    the one that Kubernetes sets."""
    assert str(parse_target(*words, environment=environment)) == written


@pytest.mark.parametrize(
    ("host", "port", "environment", "sentence"),
    [
        ("", None, {}, f"HOST: '' is not a host; give {HOST_FORMS}"),
        ("10000", None, {}, f"HOST: '10000' is not a host; give {HOST_FORMS}"),
        ("7:7", None, {}, f"HOST: '7:7' is not a host; give {HOST_FORMS}"),
        ("1.2.3", None, {}, f"HOST: '1.2.3' is not a host; give {HOST_FORMS}"),
        ("127.1:7", None, {}, f"HOST: '127.1:7' is not a host; give {HOST_FORMS}"),
        ("010.0.0.1", None, {}, f"HOST: '010.0.0.1' is not a host; give {HOST_FORMS}"),
        ("0x7f000001", None, {}, f"HOST: '0x7f000001' is not a host; give {HOST_FORMS}"),
        (":7", None, {}, f"HOST: ':7' is not a host; give {HOST_FORMS}"),
        ("unix:", None, {}, f"HOST: 'unix:' is not a host; give {HOST_FORMS}"),
        ("unix:@", None, {}, f"HOST: 'unix:@' is not a host; give {HOST_FORMS}"),
        ("[::1", None, {}, f"HOST: '[::1' is not a host; give {HOST_FORMS}"),
        ("[::1]7", None, {}, f"HOST: '[::1]7' is not a host; give {HOST_FORMS}"),
        ("[name]:7", None, {}, f"HOST: '[name]:7' is not a host; give {HOST_FORMS}"),
        ("a:7:8", None, {}, f"HOST: 'a:7:8' is not a host; give {HOST_FORMS}"),
        ("a:", None, {}, "HOST: '' is not a port; give a number from 1 to 65535, or a name in /etc/services"),
        (
            "a:no-service",
            None,
            {},
            "HOST: 'no-service' is not a port; give a number from 1 to 65535, or a name in /etc/services",
        ),
        ("[::1]:0", None, {}, "HOST: '0' is not a port; give a number from 1 to 65535, or a name in /etc/services"),
        ("a", "0", {}, "PORT: '0' is not a port; give a number from 1 to 65535, or a name in /etc/services"),
        ("a", "65536", {}, "PORT: '65536' is not a port; give a number from 1 to 65535, or a name in /etc/services"),
        (
            "a",
            "no-service",
            {},
            "PORT: 'no-service' is not a port; give a number from 1 to 65535, or a name in /etc/services",
        ),
        ("a", "\uff17", {}, "PORT: '\uff17' is not a port; give a number from 1 to 65535, or a name in /etc/services"),
        (
            "a",
            "9" * 5000,
            {},
            f"PORT: '{'9' * 5000}' is not a port; give a number from 1 to 65535, or a name in /etc/services",
        ),
        ("a:7", "8", {}, "the port is given twice, 7 in 'a:7' and '8'; give it once"),
        (None, "8", {"ECHOC_HOST": "a:7"}, "the port is given twice, 7 in ECHOC_HOST and '8'; give it once"),
        ("unix:/run/echo", "7", {}, "'unix:/run/echo' is a unix socket and has no port; leave out '7'"),
        (None, None, {"ECHOC_HOST": ":7"}, f"ECHOC_HOST: ':7' is not a host; give {HOST_FORMS}"),
        (
            None,
            None,
            {"ECHOC_HOST": "a:b"},
            "ECHOC_HOST: 'b' is not a port; give a number from 1 to 65535, or a name in /etc/services",
        ),
        (
            None,
            None,
            {"ECHOC_PORT": "x"},
            "ECHOC_PORT: 'x' is not a port; give a number from 1 to 65535, or a name in /etc/services",
        ),
    ],
)
def test_wrong(host: str | None, port: str | None, environment: dict[str, str], sentence: str) -> None:
    """An invalid host or port is reported with its argument or variable, and with the valid forms."""
    with pytest.raises(UntestableError) as caught:
        parse_target(host, port, environment=environment)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("host", "port", "environment"),
    [("a", "ssh", {}), ("a:ssh", None, {}), ("[::1]:ssh", None, {}), ("a", None, {"ECHOC_PORT": "ssh"})],
)
def test_service_name(host: str, port: str | None, environment: dict[str, str]) -> None:
    """A port may be the name of a TCP service, everywhere."""
    assert parse_target(host, port, environment=environment).port == 22


@pytest.mark.parametrize(("source", "family"), [("192.0.2.1", socket.AF_INET), ("2001:db8::7", socket.AF_INET6)])
def test_source(source: str, family: socket.AddressFamily) -> None:
    """--source decides the family of the address to connect to."""
    target = parse_target("a", None, origin=Origin(source), environment={})
    assert (target.origin.source, target.family) == (source, family)


@pytest.mark.parametrize(
    ("host", "source", "family", "sentence"),
    [
        ("a", "", socket.AF_UNSPEC, "--source: '' is not an address; give an IPv4 or IPv6 address of this machine"),
        (
            "a",
            "eth0",
            socket.AF_UNSPEC,
            "--source: 'eth0' is not an address; give an IPv4 or IPv6 address of this machine",
        ),
        ("a", "192.0.2.1", socket.AF_INET6, "--source: '192.0.2.1' is not of the family that -4 or -6 requires"),
        ("unix:/a", "192.0.2.1", socket.AF_UNSPEC, "'unix:/a' is a unix socket: leave out --source"),
        ("unix:/a", "", socket.AF_UNSPEC, "'unix:/a' is a unix socket: leave out --source"),
        ("unix:/a", None, socket.AF_INET, "'unix:/a' is a unix socket: leave out -4 and -6"),
    ],
)
def test_wrong_source(host: str, source: str | None, family: socket.AddressFamily, sentence: str) -> None:
    """An invalid --source is reported."""
    with pytest.raises(UntestableError) as caught:
        parse_target(host, None, origin=Origin(source), family=family, environment={})
    assert str(caught.value) == sentence
