"""packaging/systemd/announce-stop: SIGURG for the daemon if the queued job is a stop, and not otherwise."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ANNOUNCE_STOP = Path(__file__).parents[2] / "packaging/systemd/announce-stop"
UNIT = r"echod@a\x2db.service"

# In systemctl's place: it fails until it has been called this often, as while the manager executes itself again.
SYSTEMCTL = """\
#!/bin/sh
echo >>{calls}
[ $(wc -l <{calls}) -gt {failures} ] || exit 1
cat <<'END'
{jobs}
END
"""
STOP = f"12 {UNIT} stop running"
RESTART = f"12 {UNIT} restart running"
OTHERS = "11 echod@axb.service stop running\n13 echod.service stop waiting"


@pytest.fixture
def announced() -> Iterator[list[int]]:
    """The SIGURGs that this process, in the daemon's place, has received."""
    received: list[int] = []
    before = signal.signal(signal.SIGURG, lambda signum, frame: received.append(signum))
    yield received
    signal.signal(signal.SIGURG, before)


def run(directory: Path, jobs: str, *, failures: int = 0, pid: str = str(os.getpid())) -> int:
    """The exit status of the script, for these jobs."""
    systemctl = SYSTEMCTL.format(calls=directory / "calls", failures=failures, jobs=jobs)
    for name, text in {"systemctl": systemctl, "sleep": "#!/bin/sh\n"}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    environment = {"PATH": f"{directory}:/usr/bin:/bin", "MAINPID": pid}
    return subprocess.run((ANNOUNCE_STOP, UNIT), env=environment, check=False, timeout=20).returncode


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (STOP, [signal.SIGURG]),
        (f"{OTHERS}\n{STOP}", [signal.SIGURG]),
        (f"{OTHERS}\n{RESTART}", []),
        (OTHERS, []),
        ("", []),
    ],
)
def test_only_a_stop_of_this_unit_is_announced(
    tmp_path: Path, announced: list[int], jobs: str, expected: list[int]
) -> None:
    """A stop of the unit is announced; a restart of it, a stop of another unit and no job are not."""
    assert run(tmp_path, jobs) == 0
    assert announced == expected


def test_the_question_is_repeated(tmp_path: Path, announced: list[int]) -> None:
    """A manager that does not answer is asked again."""
    assert run(tmp_path, STOP, failures=30) == 0
    assert announced == [signal.SIGURG]


def test_no_answer_is_no_stop(tmp_path: Path, announced: list[int]) -> None:
    """A manager that never answers announces nothing, and the script fails in the end."""
    assert run(tmp_path, STOP, failures=1000) == 1
    assert announced == []


def test_a_daemon_that_has_ended(tmp_path: Path, announced: list[int]) -> None:
    """Without a process there is nothing to announce, and systemd is not asked."""
    assert run(tmp_path, STOP, pid="") == 0
    assert not (tmp_path / "calls").exists()
    assert announced == []
