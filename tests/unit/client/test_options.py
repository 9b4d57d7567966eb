"""echod.client.options."""

import argparse
import socket

import pytest

from echod.client.errors import UntestableError
from echod.client.options import Parser, add_common_arguments, seconds, seconds_or_zero, target_of, whole_number


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


def test_error() -> None:
    """An invalid command line is reported in one sentence, without the usage, that refers to the verb's --help."""
    with pytest.raises(UntestableError, match=r"^unrecognized arguments: --nonsense \(see echoc ping --help\)$"):
        parsed("--nonsense")


@pytest.mark.parametrize("text", ["0.001", "86400"])
def test_seconds(text: str) -> None:
    """A time is a number of seconds up to a day."""
    assert seconds(text) == seconds_or_zero(text) == float(text)


@pytest.mark.parametrize("text", ["-1", "86401", "nan", "inf", "soon", ""])
def test_no_seconds(text: str) -> None:
    """Anything else is an error that names the valid range."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        seconds(text)
    assert str(caught.value) == f"{text!r} is not a valid time; give seconds, more than 0 and at most 86400"
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        seconds_or_zero(text)
    assert str(caught.value) == f"{text!r} is not a valid time; give seconds, from 0 to 86400"


def test_zero_seconds() -> None:
    """0 is a valid time only where it has a meaning."""
    assert seconds_or_zero("0") == 0
    with pytest.raises(argparse.ArgumentTypeError):
        seconds("0")


def test_whole_number() -> None:
    """A range includes both ends."""
    assert [whole_number(1, 20)(text) for text in ("1", "07", "20")] == [1, 7, 20]


@pytest.mark.parametrize("text", ["0", "21", "-1", "1.5", "1_0", "\u0661", "", "9" * 5000])
def test_no_whole_number(text: str) -> None:
    """Anything else is an error that names the range."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        whole_number(1, 20)(text)
    assert str(caught.value) == f"{text!r} is not a whole number from 1 to 20"
