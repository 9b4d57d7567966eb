"""Everything that can fail, as exceptions: each is one sentence for a person and carries echoc's exit code."""

import errno
import os

from echod.client.text import counted, quoted

WINDOW = 32
"""Number of bytes, from the first wrong one on, that are shown and used to guess what happened."""

_SURPLUS_SHOWN = 8
"""Number of surplus bytes shown in the brief form: enough to recognise a protocol whose server speaks first."""

_GREETING = "it looks like the greeting of a server that speaks first"

_ENOUGH = 4
"""Number of following bytes that must agree before a guess is reported."""


NO_SERVER = "no server listens there"
"""The reason for leaving a connection whose two ends are the same socket."""


class ClientError(Exception):
    """Anything that prevents the result "identical"; `kind` is a word for programs."""

    exit_code: int
    kind: str

    @property
    def in_brief(self) -> str:
        """The error in short: for wrong or surplus bytes at most a hundred characters, otherwise the sentence."""
        return str(self)

    def fields(self) -> dict[str, object]:
        """The error in the form that `--json` prints."""
        return {"kind": self.kind, "message": str(self)}


class UntestableError(ClientError):
    """The echo could not be tested: no connection, bad usage, unreadable input, unwritable output."""

    exit_code = 2
    kind = "untestable"


class UsageError(UntestableError):
    """The command line, or an environment variable, is wrong."""


class ConnectError(UntestableError):
    """No address of `target` accepted a connection.

    `failures` are the addresses with their reasons, `reasons` the reasons alone.  `asked` is whether any address was
    asked at all: a name without an address, or a socket that this machine cannot open, says nothing about the service.
    `refused` is whether at least one refused; others may have failed because this machine has no IPv6.
    """

    kind = "connect"

    def __init__(self, target: str, failures: list[tuple[str, str]], asked: bool) -> None:
        self.failures, self.asked = failures, asked
        self.refused = any(why in (os.strerror(errno.ECONNREFUSED), NO_SERVER) for _, why in failures)
        self.reasons = ", ".join(dict.fromkeys(why for _, why in failures))
        reasons = [f"{address}: {why}" if address not in ("", target) else why for address, why in failures]
        super().__init__(f"cannot connect to {target}: {', '.join(dict.fromkeys(reasons))}")


class NameLookupError(ConnectError):
    """The name of `target` has no address, or the resolver does not know."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(target, [("", why)], asked=False)


class EchoError(ClientError):
    """The echo is wrong, or was lost."""

    exit_code = 1


class MismatchError(EchoError):
    """A byte came back changed: `sent` and `came` are the bytes from `offset` on, at least one each."""

    kind = "mismatch"

    def __init__(self, offset: int, sent: bytes, came: bytes) -> None:
        self.offset, self.sent, self.came = offset, sent[:WINDOW], came[:WINDOW]
        guess = self._guess = _guess(offset, self.sent, self.came)
        super().__init__(
            f"the server returned {_beginning(came, WINDOW)} instead of the echo; {guess}"
            if guess == _GREETING
            else f"the echo is wrong at byte {offset} (counted from 0): "
            f"sent 0x{sent[0]:02x}, received 0x{came[0]:02x}; from there on sent {quoted(self.sent)}, "
            f"received {quoted(self.came)}" + (guess and f"; {guess}")
        )

    @property
    def in_brief(self) -> str:
        """The offset, the bytes sent and received, and the guess; or the greeting of a server that speaks first."""
        if self._guess == _GREETING:
            return f"{self._guess}: {_beginning(self.came, _SURPLUS_SHOWN)}"
        text = f"byte {self.offset}: sent 0x{self.sent[0]:02x}, received 0x{self.came[0]:02x}"
        return f"{text}; {self._guess}" if self._guess else text

    def fields(self) -> dict[str, object]:
        """The bytes in hexadecimal."""
        return super().fields() | {"offset": self.offset, "sent": self.sent.hex(), "came": self.came.hex()}


class SurplusError(EchoError):
    """Bytes arrived that had not been sent: `came` begins at `offset`, the number of bytes sent."""

    kind = "surplus"

    def __init__(self, offset: int, came: bytes) -> None:
        self.offset, self.came = offset, came
        super().__init__(
            f"the server sent {counted(len(came), 'byte')} before anything was sent: {_beginning(came, WINDOW)}"
            if offset == 0
            else f"the server returned more than was sent: at least {counted(len(came), 'byte')} too many, "
            f"from byte {offset} on (counted from 0): {quoted(came[:WINDOW])}"
        )

    @property
    def in_brief(self) -> str:
        """How many bytes, the offset, and the first of them."""
        count = counted(len(self.came), "byte")
        what = (
            f"at least {count} too many, from byte {self.offset} on"
            if self.offset
            else f"the server sent {count} before anything was sent"
        )
        return f"{what}: {_beginning(self.came, _SURPLUS_SHOWN)}"

    def fields(self) -> dict[str, object]:
        """The bytes in hexadecimal."""
        return super().fields() | {"offset": self.offset, "came": self.came[:WINDOW].hex()}


class LostError(EchoError):
    """Of `sent` bytes only the first `received` came back; or all of them, but not the end of the connection."""

    def __init__(self, what: str, sent: int, received: int, cause: str = "") -> None:
        self.sent, self.received = sent, received
        super().__init__(f"{what}: {_came_back(sent, received, cause)}")

    def fields(self) -> dict[str, object]:
        """Includes the offset of the first missing byte, if any is missing."""
        return super().fields() | ({"offset": self.received} if self.sent > self.received else {})


class ShortfallError(LostError):
    """The server closed the connection before everything had come back, or before everything was sent."""

    kind = "shortfall"

    def __init__(self, sent: int, received: int) -> None:
        early = "too early" if sent > received else "before the end of the input"
        super().__init__(f"the server closed the connection {early}", sent, received)


class BrokenConnectionError(LostError):
    """The connection broke, usually by a reset; `reason` is the system's."""

    kind = "broken"

    def __init__(self, reason: str, sent: int, received: int) -> None:
        self.reason = reason
        super().__init__(f"the connection broke ({reason})", sent, received)


class SilenceError(LostError):
    """For `seconds` the server neither accepted nor returned a byte, although some, or the close, were outstanding.

    `cause` is what the kernel knows about it (transport.silence), or "".
    """

    kind = "silence"

    def __init__(self, seconds: float, sent: int, received: int, cause: str = "") -> None:
        self.seconds = seconds
        what = "was silent for" if sent > received else "did not close the connection within"
        super().__init__(f"the server {what} {seconds:g} s", sent, received, cause)


class LateError(LostError):
    """The exchange was not complete at its deadline; `cause` is what the kernel knows about it, or ""."""

    kind = "late"

    def __init__(self, sent: int, received: int, cause: str = "") -> None:
        complete = sent <= received
        what = "the server did not close the connection in time" if complete else "the echo was not complete in time"
        super().__init__(what, sent, received, cause)


class OverdueError(EchoError):
    """Of one message of `sent` bytes only the first `received` were back within `seconds`; `cause` is what the kernel
    knows about it, or ""."""

    kind = "late"

    def __init__(self, seconds: float, sent: int, received: int, cause: str = "") -> None:
        self.sent, self.received, self.cause = sent, received, cause
        some = f": {_came_back(sent, received, cause)}" if received or cause else ""
        super().__init__(f"timed out after {seconds:g} s{some}")


class ClosedError(LostError):
    """The server closed the connection, on which all `count` bytes sent had come back."""

    kind = "closed"

    def __init__(self, count: int) -> None:
        super().__init__("the server closed the idle connection", count, count)


def reason(error: OSError) -> str:
    """The system's text for `error`, without the number."""
    return error.strerror or str(error)


def _came_back(sent: int, received: int, cause: str = "") -> str:
    if sent == 0:
        return "nothing had been sent"
    if sent == received:
        return f"{'the' if sent == 1 else 'all'} {counted(sent, 'byte')} sent came back"
    if cause and not received:
        return cause
    missing = f"{sent - received} missing from byte {received} on (counted from 0)"
    return f"{received} of {counted(sent, 'byte')} sent came back, {missing}" + (cause and f"; {cause}")


def _beginning(data: bytes, count: int) -> str:
    return quoted(data[:count]) + ("..." if len(data) > count else "")


def _guess(offset: int, sent: bytes, came: bytes) -> str:
    """What happened to the stream at the first wrong byte, if the bytes after it show that; otherwise "".

    A changed byte is tried first: in a run of equal bytes it would also match an inserted one.
    """
    if _agree(sent[1:], came[1:]):
        return "only that byte was changed"
    for shift in range(1, WINDOW):
        if _agree(sent[shift:], came):
            return f"it looks as if {counted(shift, 'byte')} had been dropped there"
        if _agree(sent, came[shift:]):
            return f"it looks as if {counted(shift, 'byte')} had been inserted there"
    if offset == 0 and _is_greeting(sent, came):
        return _GREETING
    return ""


def _is_greeting(sent: bytes, came: bytes) -> bool:
    """Whether `came` begins with a line of text, as the greetings of SSH, SMTP and FTP do, and not with what was sent.

    The greeting and the first bytes usually cross on their way, so no system call says which was sent first.  Case is
    ignored: what a server has changed to upper case is not a greeting.
    """
    line = came.partition(b"\n")[0].removesuffix(b"\r")
    is_text = len(line) >= _ENOUGH - 1 and line.isascii() and line.decode().isprintable()
    same = sum(one == other for one, other in zip(sent.lower(), line.lower(), strict=False))
    return is_text and same <= len(line) // _ENOUGH  # by chance a few bytes agree


def _agree(one: bytes, other: bytes) -> bool:
    length = min(len(one), len(other))
    return length >= _ENOUGH and one[:length] == other[:length]
