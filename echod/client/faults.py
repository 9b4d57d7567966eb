"""What can go wrong, as exceptions: each is one sentence for a person and carries echoc's exit code."""

from echod.client.words import quoted

WINDOW = 32
"""How many bytes from the first wrong one on are shown, and looked at to guess what happened."""

_HINT = 8
"""How many bytes are shown in brief of those that are too many: a protocol that speaks by itself is told by them."""

_ENOUGH = 4  # bytes that must agree again before a guess is worth telling


class ClientError(Exception):
    """Anything that keeps echoc from saying "identical"; its `kind` is a word for programs."""

    exit_code: int
    kind: str

    @property
    def in_brief(self) -> str:
        """The error in one line of many: where bytes were wrong or too many, at most a hundred characters."""
        return str(self)

    def fields(self) -> dict[str, object]:
        """The error as `--json` tells it."""
        return {"kind": self.kind, "message": str(self)}


class UntestableError(ClientError):
    """Nothing can be said about the echo: no connection, bad usage, unreadable input, unwritable output."""

    exit_code = 2
    kind = "untestable"


class ConnectError(UntestableError):
    """No address of `target` could be connected to; `failures` has each, with its reason, and `reasons` is those alone.

    `asked` tells whether any was asked at all: a name without an address, or a socket that this machine can't
    make, says nothing about the service.
    """

    kind = "connect"

    def __init__(self, target: str, failures: list[tuple[str, str]], asked: bool) -> None:
        self.failures, self.asked = failures, asked
        self.reasons = ", ".join(dict.fromkeys(why for _, why in failures))
        reasons = [f"{address}: {why}" if address not in ("", target) else why for address, why in failures]
        super().__init__(f"cannot connect to {target}: {', '.join(dict.fromkeys(reasons))}")


class EchoError(ClientError):
    """The echo is wrong, or was lost."""

    exit_code = 1


class MismatchError(EchoError):
    """A byte came back as another: `sent` and `came` are the bytes from `offset` on, at least one each."""

    kind = "mismatch"

    def __init__(self, offset: int, sent: bytes, came: bytes) -> None:
        self.offset, self.sent, self.came = offset, sent[:WINDOW], came[:WINDOW]
        guess = self._guess = _guess(self.sent, self.came)
        super().__init__(
            f"the echo is wrong at byte {offset} (counted from 0): "
            f"sent 0x{sent[0]:02x}, received 0x{came[0]:02x}; from there on sent {quoted(self.sent)}, "
            f"received {quoted(self.came)}" + (guess and f"; {guess}")
        )

    @property
    def in_brief(self) -> str:
        """Where, what was sent and what came, and the guess."""
        words = f"byte {self.offset}: sent 0x{self.sent[0]:02x}, came 0x{self.came[0]:02x}"
        return f"{words}; {self._guess}" if self._guess else words

    def fields(self) -> dict[str, object]:
        """The bytes in hexadecimal."""
        return super().fields() | {"offset": self.offset, "sent": self.sent.hex(), "came": self.came.hex()}


class SurplusError(EchoError):
    """Bytes came that had not been sent: `came` begins at `offset`, the number of bytes sent."""

    kind = "surplus"

    def __init__(self, offset: int, came: bytes) -> None:
        self.offset, self.came = offset, came
        super().__init__(
            f"the server sent more than it was given: after {_bytes(offset)} came at least "
            f"{_bytes(len(came))} more, {quoted(came[:WINDOW])}"
        )

    @property
    def in_brief(self) -> str:
        """How many, where, and the first of them."""
        more = "..." if len(self.came) > _HINT else ""
        return (
            f"at least {_bytes(len(self.came))} too many, from byte {self.offset} on: {quoted(self.came[:_HINT])}{more}"
        )

    def fields(self) -> dict[str, object]:
        """The bytes in hexadecimal."""
        return super().fields() | {"offset": self.offset, "came": self.came[:WINDOW].hex()}


class LostError(EchoError):
    """Not everything came back: of `sent` bytes only the first `received`; or everything, but not the end."""

    def __init__(self, what: str, sent: int, received: int) -> None:
        self.sent, self.received = sent, received
        super().__init__(f"{what}: {_tally(sent, received)}")

    def fields(self) -> dict[str, object]:
        """With the offset of the first byte that is missing, if any is."""
        return super().fields() | ({"offset": self.received} if self.sent > self.received else {})


class ShortfallError(LostError):
    """The server ended the connection before everything had come back, or before everything was sent."""

    kind = "shortfall"

    def __init__(self, sent: int, received: int) -> None:
        early = "too early" if sent > received else "before the end of the input"
        super().__init__(f"the server closed the connection {early}", sent, received)


class BrokenConnectionError(LostError):
    """The connection broke, for the `reason` that the system gave, usually a reset."""

    kind = "broken"

    def __init__(self, reason: str, sent: int, received: int) -> None:
        self.reason = reason
        super().__init__(f"the connection broke ({reason})", sent, received)


class SilenceError(LostError):
    """For `seconds` the server neither took nor returned a byte, although it owed some, or the end."""

    kind = "silence"

    def __init__(self, seconds: float, sent: int, received: int) -> None:
        self.seconds = seconds
        what = "was silent for" if sent > received else "did not end the connection for"
        super().__init__(f"the server {what} {seconds:g} s", sent, received)


class LateError(LostError):
    """The time for the whole exchange was over before the exchange was."""

    kind = "late"

    def __init__(self, sent: int, received: int) -> None:
        what = "the echo was not whole in time" if sent > received else "the connection was not ended in time"
        super().__init__(what, sent, received)


class OverdueError(EchoError):
    """Of one message of `sent` bytes only the first `received` were back within `seconds`."""

    kind = "late"

    def __init__(self, seconds: float, sent: int, received: int) -> None:
        self.sent, self.received = sent, received
        some = f": {_tally(sent, received)}" if received else ""
        super().__init__(f"not within {seconds:g} s{some}")


class ClosedError(LostError):
    """The server ended the connection, on which all `count` bytes sent had come back."""

    kind = "closed"

    def __init__(self, count: int) -> None:
        super().__init__("the server closed the connection unasked", count, count)


def reason(error: OSError) -> str:
    """The system's own words for `error`, without the number."""
    return error.strerror or str(error)


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"


def _tally(sent: int, received: int) -> str:
    if sent == 0:
        return "nothing had been sent"
    if sent == received:
        return f"all of {_bytes(sent)} sent came back"
    missing = f"{sent - received} missing from byte {received} on (counted from 0)"
    return f"{received} of {_bytes(sent)} sent came back, {missing}"


def _guess(sent: bytes, came: bytes) -> str:
    """What happened to the stream at the first wrong byte, if the bytes after it tell; else nothing.

    A changed byte is tried first: in a run of equal bytes it would also pass for an inserted one.
    """
    if _agree(sent[1:], came[1:]):
        return "only that byte was changed"
    for shift in range(1, WINDOW):
        if _agree(sent[shift:], came):
            return f"it looks as if {_bytes(shift)} had been dropped there"
        if _agree(sent, came[shift:]):
            return f"it looks as if {_bytes(shift)} had been inserted there"
    return ""


def _agree(one: bytes, other: bytes) -> bool:
    length = min(len(one), len(other))
    return length >= _ENOUGH and one[:length] == other[:length]
