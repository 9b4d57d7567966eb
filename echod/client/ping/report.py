"""Where the lines of a ping go: to standard output as text, or there as JSON and the bad news to standard error."""

from __future__ import annotations

import argparse
import time

from echod.client.output import Screen, print_json, print_line


class Names:
    """How the other end is called: by the host that was asked for and the `address` that it turned out to be.

    With `numeric`, and where the two are the same, it is the address alone.
    """

    def __init__(self, host: str, numeric: bool) -> None:
        self._host, self._numeric = host, numeric

    def title(self, address: str) -> str:
        """As in ping(8)'s first line."""
        return address if address == self._host else f"{self._host} ({address})"

    def line(self, address: str) -> str:
        """As in each echo's line."""
        own = address.rpartition(":")[0].strip("[]")
        return address if self._numeric or self._host in (address, own) else self.title(address)


class Report:
    """Prints what `options` ask for: with `json` objects, with `quiet` the summary alone, with `timestamps` when."""

    def __init__(self, options: argparse.Namespace, screen: Screen, names: Names) -> None:
        self.names = names
        self._json: bool = options.json
        self._quiet: bool = options.quiet
        self._timestamps: bool = options.timestamps
        self._screen = screen

    def good(self, line: str, kind: str, fields: dict[str, object]) -> None:
        """Something went as it should: `line`, or an object of that `kind`, to which the time is added."""
        if self._quiet:
            return
        if self._json:
            print_json(kind, fields | {"time": time.time()})
        else:
            self._print(line)

    def bad(self, line: str, kind: str, fields: dict[str, object]) -> None:
        """Something went wrong: as `good`, and the line is printed in either case."""
        self.good(line, kind, fields)
        if self._json and not self._quiet:
            self._screen.tell(line)

    def remark(self, line: str) -> None:
        """What an object has already said, for people."""
        if not (self._quiet or self._json):
            self._print(line)

    def frame(self, *lines: str) -> None:
        """What stands before and after all that, and is there for people only."""
        if not self._json:
            for line in lines:
                print_line(line)

    def summary(self, kind: str, fields: dict[str, object]) -> None:
        """What stands after all that, for programs only."""
        if self._json:
            print_json(kind, fields)

    def _print(self, line: str) -> None:
        print_line(f"[{time.time():.6f}] {line}" if self._timestamps else line)
