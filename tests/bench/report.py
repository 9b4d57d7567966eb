"""The figures of a case as a table, and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.cases import Case
from tests.bench.measure import Round

HOLDS_MUCH = 16 << 20
"""Bytes: a server whose memory grows by more while it echoes has no back-pressure, and is marked."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The results of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "Spread":
        """The summary of one value for each round."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """The three values in readable form."""
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} [{self.low:.{digits}f} {self.high:.{digits}f}]"


@dataclass(frozen=True, slots=True)
class Table:
    """All servers' rounds of one case."""

    case: Case
    rounds: dict[str, list[Round]]

    def value(self, name: str, field: str) -> Spread:
        """A server's CPU time, rate or latency."""
        return Spread.over([one.median(field) for one in self.rounds[name]])

    def ratio(self, name: str, field: str, reference: str) -> Spread:
        """One server's value divided by another's, each time within a turn."""
        pairs = zip(self.rounds[name], self.rounds[reference], strict=True)
        return Spread.over([mine.ratio(field, its) for mine, its in pairs])

    def held(self, name: str) -> int:
        """By how many bytes the server's memory grew at its peak, in the worst round."""
        return max(one.held for one in self.rounds[name])

    def references(self) -> list[str]:
        """The servers whose CPU time is divided by each one's."""
        wanted = [name for name, _ in self.case.goals]
        if "echod-b" in self.rounds:
            wanted.append("echod")
        return [name for name in wanted if name in self.rounds]

    def render(self) -> str:
        """The table in readable form."""
        case = self.case
        per_c = [f"{name} / it" for name in self.references()]
        lines = [[case.title, f"CPU us/{case.unit}", *per_c, f"{case.unit}s/s", "/ c", "p50 us", "p99 us", "/ c", ""]]
        lines += [self._line(name) for name in self.rounds]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        goals = ", ".join(self._goals())
        return f"{text}\nechod must reach: {goals}" if goals and "echod" in self.rounds else text

    def _line(self, name: str) -> list[str]:
        costs = [self.ratio(ref, "cpu", name).show() if ref != name else "1" for ref in self.references()]
        has_c = "c" in self.rounds
        rate = self.ratio(name, "rate", "c").show() if has_c else ""
        late = self.ratio(name, "p99", "c").show() if has_c else ""
        held = self.held(name)
        return [
            name,
            self.value(name, "cpu").show(),
            *costs,
            f"{self.value(name, 'rate').median:,.0f}",
            rate,
            f"{self.value(name, 'p50').median:,.0f}",
            f"{self.value(name, 'p99').median:,.0f}",
            late,
            f"holds {held >> 20} MiB: no back-pressure" if held > HOLDS_MUCH else "",
        ]

    def _goals(self) -> list[str]:
        goals = [f"{least} ({name} / it)" for name, least in self.case.goals]
        if self.case.throughput:
            goals.append(f"throughput {self.case.throughput}")
        if self.case.p99:
            goals.append(f"p99 {self.case.p99} or less")
        return goals

    def to_json(self) -> dict[str, Any]:
        """Every slice of every round."""
        servers = {
            name: {"rounds": [[each._asdict() for each in one.slices] for one in rounds], "held": self.held(name)}
            for name, rounds in self.rounds.items()
        }
        return {"name": self.case.name, "title": self.case.title, "unit": self.case.unit, "servers": servers}


def cpu_model() -> str:
    """The kernel's name for the processor, proc_cpuinfo(5)."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return "unknown"
