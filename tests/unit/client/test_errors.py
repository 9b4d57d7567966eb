"""echod.client.errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.client.errors import (
    BrokenConnectionError,
    ClientError,
    ClosedError,
    EchoError,
    LateError,
    MismatchError,
    ShortfallError,
    SilenceError,
    SurplusError,
    UntestableError,
    reason,
)

SENT = b"This is the message.  It will be repeated."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            MismatchError(12, b"message", b"M\x00ssage"),
            (
                "the echo is wrong at byte 12 (counted from 0): sent 0x6d, received 0x4d; "
                'from there on sent "message", received "M\\x00ssage"'
            ),
        ),
        (
            MismatchError(0, SENT, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
            (
                'the server returned "SSH-2.0-OpenSSH_9.2p1\\r\\n" instead of the echo; '
                "it looks like the greeting of a server that speaks first"
            ),
        ),
        (
            SurplusError(1, b"!"),
            'the server returned more than was sent: at least 1 byte too many, from byte 1 on (counted from 0): "!"',
        ),
        (
            SurplusError(0, b"SSH-2.0-OpenSSH_9.2\r\n"),
            'the server sent 21 bytes before anything was sent: "SSH-2.0-OpenSSH_9.2\\r\\n"',
        ),
        (
            SurplusError(0, b"x" * 33),
            'the server sent 33 bytes before anything was sent: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"...',
        ),
        (
            ShortfallError(42, 20),
            (
                "the server closed the connection too early: 20 of 42 bytes sent came back, "
                "22 missing from byte 20 on (counted from 0)"
            ),
        ),
        (
            ShortfallError(42, 42),
            "the server closed the connection before the end of the input: all 42 bytes sent came back",
        ),
        (ShortfallError(0, 0), "the server closed the connection before the end of the input: nothing had been sent"),
        (
            BrokenConnectionError("Connection reset by peer", 42, 0),
            (
                "the connection broke (Connection reset by peer): 0 of 42 bytes sent came back, "
                "42 missing from byte 0 on (counted from 0)"
            ),
        ),
        (
            SilenceError(10, 42, 41),
            "the server was silent for 10 s: 41 of 42 bytes sent came back, 1 missing from byte 41 on (counted from 0)",
        ),
        (
            SilenceError(0.5, 42, 42),
            "the server did not close the connection within 0.5 s: all 42 bytes sent came back",
        ),
        (
            LateError(42, 41),
            (
                "the echo was not complete in time: 41 of 42 bytes sent came back, "
                "1 missing from byte 41 on (counted from 0)"
            ),
        ),
        (LateError(42, 42), "the server did not close the connection in time: all 42 bytes sent came back"),
    ],
)
def test_sentence(error: EchoError, sentence: str) -> None:
    """Each wrong echo is one sentence with its numbers, and exit code 1."""
    assert str(error) == sentence
    assert error.exit_code == 1


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (
            MismatchError(12, b"message", b"M\x00ssage"),
            {"offset": 12, "sent": b"message".hex(), "came": "4d007373616765"},
        ),
        (SurplusError(1, b"!"), {"offset": 1, "came": "21"}),
        (ShortfallError(42, 20), {"offset": 20}),
        (BrokenConnectionError("why", 42, 0), {"offset": 0}),
        (SilenceError(10, 42, 42), {}),
        (UntestableError("why"), {}),
    ],
)
def test_fields(error: ClientError, more: dict[str, object]) -> None:
    """The fields are the kind, the sentence, and the offset of the byte if there is one."""
    assert error.fields() == {"kind": error.kind, "message": str(error)} | more


def test_untestable_exit_code() -> None:
    """An error that says nothing about the echo has exit code 2."""
    assert UntestableError("why").exit_code == 2


@pytest.mark.parametrize(
    ("sent", "came", "guess"),
    [
        (SENT, b"X" + SENT[1:], "; only that byte was changed"),
        (b"\0" * 32, b"\1" + b"\0" * 31, "; only that byte was changed"),
        (SENT, SENT[1:], "; it looks as if 1 byte had been dropped there"),
        (SENT, SENT[9:], "; it looks as if 9 bytes had been dropped there"),
        (SENT, b"TThis", "; it looks as if 1 byte had been inserted there"),
        (SENT, b"==" + SENT, "; it looks as if 2 bytes had been inserted there"),
        (SENT, b"X", ""),
        (b"ed.", b"d.", ""),
    ],
)
def test_guess(sent: bytes, came: bytes, guess: str) -> None:
    """The bytes after the first wrong one show whether it was changed, dropped or inserted, or there is no guess."""
    assert str(MismatchError(0, sent, came)).rpartition('"')[2] == guess


@pytest.mark.parametrize(
    ("offset", "sent", "came", "is_greeting"),
    [
        (0, SENT, b"SSH-2.0-OpenSSH_9.2p1\r\n", True),
        (0, b"\x01" * 32, b"+OK\r\n", True),
        (0, SENT, b"220 mail.example ESMTP and more of", True),
        (1, SENT, b"SSH-2.0-OpenSSH_9.2p1\r\n", False),
        (0, b"hello", b"HELLO", False),
        (0, b"\x00SH-" + bytes(20), b"SSH-2.0-OpenSSH_9.2p1\r\n", True),
        (0, SENT, b"\x00\x01\x02\x03 text\n", False),
        (0, SENT, b"ab\n", False),
    ],
)
def test_greeting(offset: int, sent: bytes, came: bytes, is_greeting: bool) -> None:
    """A line of text instead of the first byte looks like a greeting, unless it is what was sent in another case."""
    error = MismatchError(offset, sent, came)
    assert str(error).endswith("; it looks like the greeting of a server that speaks first") == is_greeting


def test_reason_without_number() -> None:
    """An OSError that has no number, as some of Python's own, is reported by its text."""
    assert reason(OSError(111, "Connection refused")) == "Connection refused"
    assert reason(TimeoutError("timed out")) == "timed out"


def test_in_brief() -> None:
    """In brief a wrong byte has its offset, its value and the guess, surplus bytes have their offset and beginning, and
    any other error its sentence."""
    assert MismatchError(59, b"ABCDEFGH", b"BCDEFGHI").in_brief == (
        "byte 59: sent 0x41, received 0x42; it looks as if 1 byte had been dropped there"
    )
    assert MismatchError(0, b"A", b"\x1b").in_brief == "byte 0: sent 0x41, received 0x1b"
    assert (
        SurplusError(56, b"421 Idle too long").in_brief == 'at least 17 bytes too many, from byte 56 on: "421 Idle"...'
    )
    assert SurplusError(0, b"\x1b").in_brief == 'the server sent 1 byte before anything was sent: "\\x1b"'
    assert MismatchError(0, SENT, b"SSH-2.0-OpenSSH_9.2p1").in_brief == (
        'it looks like the greeting of a server that speaks first: "SSH-2.0-"...'
    )
    assert ClosedError(56).in_brief == str(ClosedError(56))


@given(st.integers(0, 10**12), st.binary(min_size=1), st.binary(min_size=1))
def test_length_in_brief(offset: int, sent: bytes, came: bytes) -> None:
    """In brief a wrong or surplus byte takes at most a hundred characters."""
    assert len(MismatchError(offset, sent, came).in_brief) <= 100
    assert len(SurplusError(offset, came).in_brief) <= 100
