"""packaging/requirements/venv.sh where pip cannot download anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 100.0  # seconds; an environment takes five
FAILED = "echod: pip could not install the packages of packaging/requirements/build.txt; its message above says why"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory with what the script reads of a checkout."""
    shutil.copytree(ROOT / "packaging/requirements", tmp_path / "packaging/requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def make_environment(scratch: Path, port: int) -> subprocess.CompletedProcess[str]:
    """Run the script with a package index on a port that refuses connections."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
    }
    command = ("sh", str(scratch / "packaging/requirements/venv.sh"), "made", "runtime")
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, cwd=scratch)


def test_a_failed_download_ends_it(scratch: Path, closed_port: int) -> None:
    """It fails with a sentence and no traceback, tries no other step, and leaves nothing that looks complete."""
    done = make_environment(scratch, closed_port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == FAILED
    assert "Traceback" not in done.stderr
    assert "installing the pinned packages of runtime" not in done.stdout
    assert not (scratch / "made/pins.stamp").exists()
