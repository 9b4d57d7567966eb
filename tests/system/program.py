"""echod put into a machine as a package would do it: wheels unpacked into /usr/lib/echod, two scripts, the unit."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.system.machine import Machine

CHECKOUT = Path(__file__).parents[2]
RUNTIME = CHECKOUT / "packaging/requirements/runtime.txt"
UNIT = CHECKOUT / "packaging/systemd/echod.service"

PIP_TIMEOUT = 300.0  # seconds
# From packaging/requirements/build.txt; isolated builds would take whatever setuptools is newest that day.
BY_PINNED_SETUPTOOLS = ("--no-build-isolation", "--use-pep517")

# -I: neither the environment nor the working directory may add to what is imported.
SCRIPT = """\
#!/usr/bin/python3 -I
import sys
sys.path.insert(0, "/usr/lib/echod")
from {module} import main
sys.exit(main())
"""
SCRIPTS = {"echod": "echod.cli", "echoc": "echod.client.cli"}


def build(python: str, scratch: Path) -> Path:
    """A tar archive of echod's wheel and its pinned dependencies, unpacked, for this version of Python.

    Raises subprocess.CalledProcessError, with pip's words on the test's standard error.
    """
    # A copy, because setuptools leaves build/ in the source tree, and packs what an earlier build left there.
    source, tree = scratch / "source", scratch / "tree"
    shutil.copytree(CHECKOUT / "echod", source / "echod", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    # --python-version: wheels for the machine's Python, which is not the one that runs the tests. Together with it pip
    # takes a source archive, which sdnotify is, only if told not to look for dependencies; the pins name them all.
    into = ("install", "--target", str(tree), "--python-version", python, "--no-deps", *BY_PINNED_SETUPTOOLS)
    pip(*into, "--require-hashes", "--requirement", str(RUNTIME))
    pip(*into, str(source))
    archive = scratch / "tree.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, ".", filter=owned_by_root)
    return archive


def pip(*arguments: str) -> None:
    """Run this Python's pip. Raises subprocess.CalledProcessError or TimeoutExpired."""
    command = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=PIP_TIMEOUT)


def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A filter for TarFile.add(); leaves out what this Python has compiled, which is not for the machine's."""
    member.uid = member.gid = 0
    return None if "__pycache__" in member.name else member


def install(machine: Machine, archive: Path) -> None:
    """Put what build() made into the machine."""
    machine.run("mkdir", "--parents", "/usr/lib/echod")
    with archive.open("rb") as file:
        machine.unpack(file, "/usr/lib/echod")
    machine.run("python3", "-m", "compileall", "-q", "/usr/lib/echod")
    for name, module in SCRIPTS.items():
        machine.write(f"/usr/bin/{name}", SCRIPT.format(module=module))
        machine.run("chmod", "755", f"/usr/bin/{name}")
    machine.write("/usr/lib/systemd/system/echod.service", UNIT.read_text())
    machine.run("systemctl", "daemon-reload")
