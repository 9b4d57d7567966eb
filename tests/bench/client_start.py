"""The start time of echoc, compared with a Python that imports the modules that any such client needs."""

import random
import subprocess
import time

from tests.bench.processes import Failed
from tests.bench.servers import ROOT

LIMIT = 1.5
TURNS = 41

PYTHON = "/usr/bin/python3"
"""The interpreter of an installed echoc; others have other site-packages, which a start without -S must read."""

# Equivalent to the command echoc that packaging/install.sh writes.
_STUB = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from echod.client.cli import main; sys.exit(main())"
_ECHOC = (PYTHON, "-IS", "-c", _STUB, "--version")
_BASELINE = (PYTHON, "-I", "-c", "import argparse, socket")
BASELINE = 'python3 -I -c "import argparse, socket"'


def measure(turns: int = TURNS) -> list[float]:
    """echoc's run time divided by the other's, turn by turn, after one turn to compile and warm up.

    Raises `Failed` if either fails.
    """
    order = [_ECHOC, _BASELINE]
    draw = random.Random(0)
    ratios = []
    for _ in range(1 + turns):
        draw.shuffle(order)
        spent = {command: _seconds(command) for command in order}
        ratios.append(spent[_ECHOC] / spent[_BASELINE])
    return ratios[1:]


def _seconds(command: tuple[str, ...]) -> float:
    began = time.perf_counter()
    result = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    spent = time.perf_counter() - began
    if result.returncode:
        raise Failed(f"{' '.join(command)} ended with {result.returncode}: {result.stderr.strip()}")
    return spent
