"""Standard output, for the echo alone, and standard error, for everything that echoc says itself.

Both are written by descriptor: the echo is bytes, must leave at once, and what Python would hold back in a
buffer could fail only after the exit code is decided.
"""

import os
import select
from contextlib import suppress

from echod.client.faults import UntestableError, reason

SCHEMA = 1
"""The version of what `--json` prints: another when a field changes its meaning or goes, not when one is added."""


def fill_standard_descriptors() -> None:
    """Open /dev/null on descriptors 0, 1 and 2 where they are closed; raises OSError when there is none.

    Else the connection itself would become, say, descriptor 1, and the echo be sent back to the server as
    output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, so this one


def print_bytes(data: bytes) -> None:
    """Write all of `data` to standard output.

    Raises BrokenPipeError when its reader has gone, and UntestableError for any other failure (a full disk).
    """
    try:
        _write(1, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UntestableError(f"cannot write to standard output: {reason(error)}") from error


def print_line(line: str) -> None:
    """Print a line of text on standard output; raises as `print_bytes`."""
    print_bytes(line.encode("utf-8", "backslashreplace") + b"\n")


def print_json(kind: str, fields: dict[str, object]) -> None:
    """Print an object of the `kind` that echoc.schema.json describes, on a line of its own; raises as `print_bytes`."""
    import json  # costs as much as a fifth of echoc's start

    print_line(json.dumps({"schema": SCHEMA, "kind": kind, **fields}, ensure_ascii=True, allow_nan=False))


def has_colours(descriptor: int) -> bool:
    """Whether text for `descriptor` may be coloured: it is a terminal that can, and nobody objects.

    As https://no-color.org has it, NO_COLOR objects when it is set and not empty.
    """
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """Prints the echo and, in between, what echoc has to say; keeps the two apart where a person sees both.

    On a terminal a line break is added after an echo that does not end with one.  Into a pipe or a file
    the echo goes byte for byte.
    """

    def __init__(self) -> None:
        self._terminal = os.isatty(1)
        self._both_terminals = self._terminal and os.isatty(2)
        self._line_is_open = False

    def echo(self, data: bytes) -> None:
        """Print received bytes; raises as `print_bytes`."""
        print_bytes(data)
        self._line_is_open = not data.endswith(b"\n")

    def tell(self, line: str) -> None:
        """Print a line on standard error; if that can't be written, there is nobody left to tell."""
        if self._both_terminals:
            self.end_line()
        with suppress(OSError):
            _write(2, line.encode("utf-8", "backslashreplace") + b"\n")

    def end_line(self) -> None:
        """Finish the line that the echo left open, on a terminal; raises as `print_bytes`."""
        if self._terminal and self._line_is_open:
            self._line_is_open = False  # first: whoever reports that the line break failed must not fail again
            print_bytes(b"\n")


def _write(descriptor: int, data: bytes) -> None:
    """Write all of `data`; raises OSError."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # A parent may have left the open file, which is shared, in non-blocking mode.
            select.select([], [descriptor], [])
