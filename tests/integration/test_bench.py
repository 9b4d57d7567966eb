"""The benchmark: its load generator, generator.c, and the interpreter that it accepts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench import machine
from tests.bench.options import parse
from tests.bench.servers import compile_program
from tests.integration.daemon import DEADLINE, Daemon

MESSAGES = 20


@pytest.mark.parametrize(("mode", "size"), [("echo", 64), ("stream", 1 << 20), ("churn", 64)])
def test_a_phase(tmp_path: Path, mode: str, size: int) -> None:
    """It compiles without a warning, receives as many echoes as it is asked for, and reports plausible latencies."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    program = compile_program("generator.c", tmp_path, "-Werror")
    with Daemon() as daemon:
        command = [program, str(daemon.port), "4", str(size), "5", mode, "sleep", "2"]
        done = subprocess.run(command, input=f"go {MESSAGES}", capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    ready, figures = done.stdout.splitlines()
    messages, elapsed, p50, p99 = map(int, figures.removeprefix("done ").split())
    assert (ready, messages) == ("ready", MESSAGES)
    assert 0 < p50 <= p99
    assert p50 < 1.04 * elapsed


def test_another_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of an interpreter that is not Debian's mislead; --any-python accepts it."""
    monkeypatch.setattr(machine, "PYTHON", "/nonexistent/python3")
    servers = "--servers=c"
    assert machine.missing(parse([servers])).startswith("this is not Debian's Python, /nonexistent/python3, but ")
    assert "Debian" not in machine.missing(parse([servers, "--any-python"]))
