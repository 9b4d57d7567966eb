"""packaging/systemd/back-off: the delay before a failed service is started again."""

import subprocess
from pathlib import Path

import pytest

BACK_OFF = Path(__file__).parents[2] / "packaging/systemd/back-off"

# In systemctl's place, and in sleep's, which says how long it was to be.
SYSTEMCTL = """\
#!/bin/sh
echo NRestarts={restarts}
echo ExecMainStartTimestampMonotonic=1000000
echo ExecMainExitTimestampMonotonic={ended}
"""
SLEEP = "#!/bin/sh\necho $1\n"


def delay(directory: Path, *, restarts: int, lived: int = 0, result: str = "exit-code", status: str = "70") -> str:
    """The seconds for which the script sleeps, as text; empty if it does not sleep."""
    commands = {"systemctl": SYSTEMCTL.format(restarts=restarts, ended=(lived + 1) * 1_000_000), "sleep": SLEEP}
    for name, text in commands.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    environment = {"PATH": f"{directory}:/usr/bin:/bin", "SERVICE_RESULT": result, "EXIT_STATUS": status}
    done = subprocess.run((BACK_OFF, "echod.service"), env=environment, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("restarts", "expected"), [(0, ""), (1, ""), (2, "1"), (3, "2"), (8, "7"), (9, "8"), (10, "8"), (100000, "8")]
)
def test_each_early_death_waits_longer(tmp_path: Path, restarts: int, expected: str) -> None:
    """The first two restarts are not delayed; each later one is delayed by one second more, up to eight."""
    assert delay(tmp_path, restarts=restarts) == expected


@pytest.mark.parametrize(("restarts", "expected"), [(0, "1"), (1, "2"), (7, "8"), (8, "8")])
def test_a_taken_address_is_not_tried_at_once(tmp_path: Path, restarts: int, expected: str) -> None:
    """If the address is in use, the first restart is delayed by a second, and each later one by one second more."""
    assert delay(tmp_path, restarts=restarts, status="69") == expected


@pytest.mark.parametrize(("lived", "expected"), [(9, "8"), (10, ""), (100000, "")])
def test_who_has_lived_for_ten_seconds_does_not_wait(tmp_path: Path, lived: int, expected: str) -> None:
    """A daemon that ran for ten seconds is restarted at once, however often it was restarted before."""
    assert delay(tmp_path, restarts=50, lived=lived) == expected


@pytest.mark.parametrize("status", ["0", "75", "TERM"])
def test_a_hand_over_does_not_wait(tmp_path: Path, status: str) -> None:
    """After a SIGTERM before the daemon was ready, which systemd counts as a failure, there is no delay."""
    assert delay(tmp_path, restarts=50, result="protocol", status=status) == ""


def test_who_was_stopped_does_not_wait(tmp_path: Path) -> None:
    """After an orderly stop there is no delay."""
    assert delay(tmp_path, restarts=50, result="success") == ""
