"""echod.client.options."""

import argparse
import socket

import pytest

from echod.client.errors import UntestableError
from echod.client.options import Parser, add_common_arguments, seconds, seconds_or_zero, size, target_of, whole_number


def parsed(*words: str) -> argparse.Namespace:
    """The common arguments, from a command line."""
    parser = Parser("ping")
    add_common_arguments(parser)
    return parser.parse_args(words)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are localhost, port 10000, either family, and ten seconds for each address."""
    monkeypatch.delenv("ECHOC_HOST", raising=False)
    monkeypatch.delenv("ECHOC_PORT", raising=False)
    options = parsed()
    assert str(target_of(options)) == "localhost:10000"
    assert (options.family, options.source, options.connect_timeout) == (socket.AF_UNSPEC, None, 10.0)


@pytest.mark.parametrize(("flag", "family"), [("-4", socket.AF_INET), ("-6", socket.AF_INET6)])
def test_family(flag: str, family: socket.AddressFamily) -> None:
    """-4 and -6 choose the family."""
    assert target_of(parsed("echo.example", "7", flag)).family == family


@pytest.mark.parametrize(
    "line",
    ["h 7 -4 --json", "-4 --json h 7", "h -4 7 --json", "-4 h --json 7", "h -4 --json 7", "--json h -4 -- 7"],
)
def test_intermixed(line: str) -> None:
    """Options may stand before, between and after HOST and PORT, and a -- before either."""
    options = parsed(*line.split())
    assert (options.host, options.port, options.family, options.json) == ("h", "7", socket.AF_INET, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [("h -4 7 8", "8"), ("h --nonsense 7", "--nonsense"), ("h -4 7 --nonsense", "--nonsense"), ("h 7 -4 8", "8")],
)
def test_too_many(line: str, words: str) -> None:
    """A word that is neither HOST nor PORT nor an option is an error wherever it stands."""
    with pytest.raises(UntestableError, match=f"^unrecognized arguments: {words} "):
        parsed(*line.split())


def test_error() -> None:
    """An invalid command line is reported in one sentence, without the usage, that refers to the verb's --help."""
    with pytest.raises(UntestableError, match=r"^unrecognized arguments: --nonsense \(see echoc ping --help\)$"):
        parsed("--nonsense")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.001", 0.001),
        ("2", 2.0),
        ("50us", 50e-6),
        ("100ms", 0.1),
        (".5s", 0.5),
        ("1.5m", 90.0),
        ("24h", 86400.0),
    ],
)
def test_seconds(text: str, value: float) -> None:
    """A time is a number of seconds up to a day, or has a unit."""
    assert seconds(text) == seconds_or_zero(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["-1", "86401", "25h", "nan", "inf", "soon", "", "s", "1S", "1sm", "5min"])
def test_no_seconds(text: str) -> None:
    """Anything else is an error that names the units and the valid range."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        seconds(text)
    forms = f"{text!r} is not a valid time; give seconds, or a unit as in 100ms, 2s, 5m and 1h"
    assert str(caught.value) == f"{forms}, more than 0 and at most 24h"
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        seconds_or_zero(text)
    assert str(caught.value) == f"{forms}, from 0 to 24h"


def test_zero_seconds() -> None:
    """0 is a valid time only where it has a meaning."""
    assert seconds_or_zero("0") == 0
    with pytest.raises(argparse.ArgumentTypeError):
        seconds("0")


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("064", 64), ("64K", 65536), ("64k", 65536), ("3KiB", 3072), ("16M", 1 << 24)]
)
def test_size(text: str, value: int) -> None:
    """A size is a number of bytes up to 16M, or has a unit of powers of 1024, in either case."""
    assert size(text) == value


@pytest.mark.parametrize("text", ["0", "17M", "16777217", "-1", "1.5K", "1_0", "K", "", "64KB", "1G", "64 K", "9" * 99])
def test_no_size(text: str) -> None:
    """Anything else is an error that names the range and a unit."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        size(text)
    assert str(caught.value) == f"{text!r} is not a size; give bytes, from 1 to 16M, as in 64 or 64K"


def test_whole_number() -> None:
    """A range includes both ends."""
    assert [whole_number(1, 20)(text) for text in ("1", "07", "20")] == [1, 7, 20]


@pytest.mark.parametrize("text", ["0", "21", "-1", "1.5", "1_0", "\u0661", "", "9" * 5000])
def test_no_whole_number(text: str) -> None:
    """Anything else is an error that names the range."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        whole_number(1, 20)(text)
    assert str(caught.value) == f"{text!r} is not a whole number from 1 to 20"
