"""What happens to echod during a soak, in an order that depends on the seed alone."""

import random
from collections.abc import Iterator
from typing import NamedTuple

WEIGHTS = {
    "restart": 4,
    "reload": 5,
    "reload with an error": 4,
    "restart with an error": 1,
    "kill a worker": 4,
    "freeze a worker": 2,
    "exhaust descriptors": 2,
    "re-execute systemd": 2,
    "fill the log": 1,
}
"""How often each kind of step comes, in relation to the others."""

WITHOUT_WAITING = 0.3
"""The part of the steps by systemctl that do not wait for its job, so that the next step meets a job under way."""
PAUSE_MAX = 2.0
"""Seconds between two steps, at most."""
HOLD_MAX = 3.0
"""Seconds for which a process stays frozen or without descriptors, at most."""
FOR_GOOD = 0.3
"""The part of the frozen workers that stay so, until the parent kills them."""

BASE = """\
host = ["127.0.0.1", "::1", "unix:@echod-soak"]
limits.drain_timeout = 100
"""
"""The configuration at the beginning and at the end: the addresses on which the clients rely, in every valid one."""

ERRORS = (
    "port = 70000\n",
    "wrokers = 2\n",
    "[limits\n",
    'chunk_size = "a few"\n',
    BASE.replace('"::1"', '"192.0.2.1"'),  # an address of no machine (RFC 5737)
)
"""Configurations by which no echod can serve."""


class Step(NamedTuple):
    """One step: `kind`, after a pause of `pause` seconds; of the other fields each kind uses some."""

    number: int
    pause: float
    kind: str
    text: str
    """The configuration to reload."""
    waits: bool
    """Whether systemctl waits for the job."""
    choice: float
    """From 0 to 1: which of the processes."""
    hold: float
    """Seconds until a process gets back what it was denied; 0 for never."""

    def __str__(self) -> str:
        """The step as the log of the soak shows it."""
        details = []
        if self.text:
            details.append(" ".join(self.text.split()))
        if not self.waits:
            details.append("without waiting")
        if self.kind in {"freeze a worker", "exhaust descriptors"}:
            details.append(f"for {self.hold:.1f} s" if self.hold else "for good")
        return f"{self.number:4}. {self.kind}" + (f" ({', '.join(details)})" if details else "")


def steps(seed: int) -> Iterator[Step]:
    """The steps that follow from the seed; there is no last one."""
    random_ = random.Random(seed)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    number = 0
    while True:
        number += 1
        kind = random_.choices(kinds, weights)[0]
        # Everything is drawn for every step, so that a change of one kind leaves the order of the others alone.
        pause, choice, hold = random_.uniform(0, PAUSE_MAX), random_.random(), random_.uniform(0.5, HOLD_MAX)
        waits, for_good = random_.random() >= WITHOUT_WAITING, random_.random() < FOR_GOOD
        valid, error = _configuration(random_), random_.choice(ERRORS)
        yield Step(
            number=number,
            pause=pause,
            kind=kind,
            text=valid if kind == "reload" else error if kind.endswith("with an error") else "",
            waits=waits or not kind.startswith(("restart", "reload")),
            choice=choice,
            hold=0.0 if for_good and kind == "freeze a worker" else hold,
        )


def _configuration(random_: random.Random) -> str:
    """Another valid configuration: the workers adopt it, or others replace them."""
    workers, chunk_size = random_.randint(1, 4), random_.choice((4096, 65536, 262144))
    base = BASE.replace('"::1"', '"::1", "127.0.0.2"') if random_.random() < 0.3 else BASE
    return f"workers = {workers}\nchunk_size = {chunk_size}\n{base}"
