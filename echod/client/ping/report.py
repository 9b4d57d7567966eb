"""Printing the lines of a ping: on standard output as text, or there as JSON and errors on standard error as well."""

from __future__ import annotations

import argparse
import time

from echod.client.output import Screen, print_json, print_text
from echod.client.transport import statistics_line


class Names:
    """How the server is named in the output: by the `host` that was given, and the `address` connected to.

    With `numeric`, and where the two are the same, it is the address alone.
    """

    def __init__(self, host: str, numeric: bool) -> None:
        self._host, self._numeric = host, numeric

    def title(self, address: str) -> str:
        """The name in the first line, as in ping(8)."""
        return address if address == self._host else f"{self._host} ({address})"

    def line(self, address: str) -> str:
        """The name in the line of each echo."""
        own = address.rpartition(":")[0].strip("[]")
        return address if self._numeric or self._host in (address, own) else self.title(address)


class Report:
    """Prints as `options` require: `json` objects, only the summary if `quiet`, details if `verbose`, and `timestamps`
    before lines.

    `reminds` is whether to report an `outstanding` echo at each interval, `shows_tcp` whether what TCP knows is printed
    with each result.
    """

    def __init__(self, options: argparse.Namespace, screen: Screen, names: Names) -> None:
        self.names = names
        self.reminds: bool = options.outstanding and not options.quiet
        self._json: bool = options.json
        self._quiet: bool = options.quiet
        self._timestamps: bool = options.timestamps
        self._verbose: bool = options.verbose
        self.shows_tcp: bool = (options.json or options.verbose) and not options.quiet
        self._screen = screen

    def good(self, line: str, kind: str, fields: dict[str, object]) -> None:
        """Print a success: `line`, or an object of that `kind`, to which the time is added."""
        if self._quiet:
            return
        if self._json:
            print_json(kind, fields | {"time": time.time()})
        else:
            self._print(line)

    def bad(self, line: str, kind: str, fields: dict[str, object]) -> None:
        """Print a failure: as `good`, and with --json the line as well, on standard error."""
        self.good(line, kind, fields)
        if self._json and not self._quiet:
            self._screen.message(line)

    def remark(self, line: str) -> None:
        """Print a line that repeats as text what is in an object."""
        if not (self._quiet or self._json):
            self._print(line)

    def detail(self, local: str, tcp: dict[str, float] | None) -> None:
        """Print what TCP knows, if that is wanted; it is also in an object."""
        if self._verbose and tcp:
            self.remark(f"from {local}: {statistics_line(tcp)}")

    def frame(self, *lines: str) -> None:
        """Print lines before or after the results, as text only."""
        if not self._json:
            for line in lines:
                print_text(line)

    def summary(self, kind: str, fields: dict[str, object]) -> None:
        """Print the object after the results, as JSON only."""
        if self._json:
            print_json(kind, fields)

    def _print(self, line: str) -> None:
        print_text(f"[{time.time():.6f}] {line}" if self._timestamps else line)
