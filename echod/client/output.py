"""Standard output, for echoes and results, and standard error, for messages.

Both are written by descriptor: the echo is bytes and must be written at once, and a write that Python delays in its
buffer could fail after the exit code is decided.
"""

import os
import select
from contextlib import suppress

from echod.client.errors import UntestableError, reason

SCHEMA = 2
"""The version of the JSON output: it changes when a field is removed or changes its meaning, not when one is added."""

_INDENT = "  "
_UNLIMITED = 1_000_000


def fill_standard_descriptors() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that is closed; raises OSError when it does not exist.

    Otherwise the connection could become descriptor 1, and the echo would be sent to the server again as output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def print_bytes(data: bytes) -> None:
    """Write all of `data` to standard output.

    Raises BrokenPipeError when the reader has closed it, and UntestableError for any other failure (a full disk).
    """
    try:
        _write(1, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UntestableError(f"cannot write to standard output: {reason(error)}") from error


def print_line(line: str) -> None:
    """Print a line of text on standard output; raises as `print_bytes` does."""
    print_bytes(line.encode("utf-8", "backslashreplace") + b"\n")


def print_json(kind: str, fields: dict[str, object]) -> None:
    """Print a JSON object, of a `kind` in echoc.schema.json, on a line of its own; raises as `print_bytes` does."""
    import json  # importing it costs a fifth of echoc's start

    print_line(json.dumps({"schema": SCHEMA, "kind": kind, **fields}, ensure_ascii=True, allow_nan=False))


def has_colours(descriptor: int) -> bool:
    """Whether output to `descriptor` may be coloured: it is a terminal that supports colours, and NO_COLOR is unset or
    empty (https://no-color.org)."""
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def columns(descriptor: int) -> int:
    """The width of the terminal that `descriptor` is; without a terminal, more than any line has."""
    with suppress(OSError):
        return os.get_terminal_size(descriptor).columns or _UNLIMITED
    return _UNLIMITED


def folded(line: str, width: int) -> list[str]:
    """A line of text as lines of at most `width` columns, where it has spaces; all but the first are indented."""
    lines = []
    while len(line) > width and (end := line.rfind(" ", len(_INDENT), width + 1)) > 0:
        lines.append(line[:end])
        line = _INDENT + line[end + 1 :]
    return [*lines, line]


def print_text(line: str) -> None:
    """Print a line of text on standard output, folded to the width of a terminal; raises as `print_bytes` does."""
    for part in folded(line, columns(1)):
        print_line(part)


class StatusLine:
    """A line on standard error that is overwritten, if that is a terminal and the line `is_wanted`."""

    def __init__(self) -> None:
        self.is_wanted = os.isatty(2)
        self._length = 0

    def show(self, text: str) -> None:
        """Replace the line with `text`, cut to the width of the terminal."""
        if self.is_wanted:
            with suppress(OSError):
                # Two columns are left for the "^C" that the terminal adds, which the next text must cover.
                text = text[: (os.get_terminal_size(2).columns or 80) - 1 - len("^C")]
                before, self._length = self._length, len(text) + len("^C")  # first: Ctrl-C may interrupt the rest
                # Back to the end of the text, where the terminal adds it.
                os.write(2, f"\r{text:<{before}}".encode() + b"\b" * (before - len(text)))

    def erase(self) -> None:
        """Clear the line."""
        if self._length:
            with suppress(OSError):
                os.write(2, b"\r" + b" " * self._length + b"\r")
            self._length = 0


class Screen:
    """Prints the echo on standard output and messages on standard error, on separate lines where both are terminals.

    On a terminal a line break is added after an echo that does not end with one.  To a pipe or a file the echo is
    written byte for byte.
    """

    def __init__(self) -> None:
        self._terminal = os.isatty(1)
        self._both_terminals = self._terminal and os.isatty(2)
        self._line_is_open = False
        self.status = StatusLine()

    def echo(self, data: bytes) -> None:
        """Print received bytes; raises as `print_bytes` does."""
        print_bytes(data)
        self._line_is_open = not data.endswith(b"\n")

    def message(self, line: str) -> None:
        """Print a line on standard error, folded to the width of a terminal; a failure to do so is ignored, since there
        is no place left to report it."""
        self.status.erase()
        if self._both_terminals:
            self.end_line()
        text = "".join(f"{part}\n" for part in folded(line, columns(2)))
        with suppress(OSError):
            _write(2, text.encode("utf-8", "backslashreplace"))

    def end_line(self) -> None:
        """On a terminal, end the line that the echo left open; raises as `print_bytes` does."""
        if self._terminal and self._line_is_open:
            self._line_is_open = False  # first: reporting that the line break failed must not fail in the same way
            print_bytes(b"\n")


def _write(descriptor: int, data: bytes) -> None:
    """Write all of `data`; raises OSError."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # The open file is shared with the parent process, which may have set it to non-blocking mode.
            select.select([], [descriptor], [])
