"""Fresh Debian roots to boot, created once and kept outside the checkout.

debootstrap takes about a minute and 250 MB for one, so they are cached. Nothing ever writes to a finished root: every
boot puts an overlay in memory over it (see boot.py), which is why a root can serve two test runs at the same time.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The oldest and the newest Debian that the packages are for: systemd 252 with Python 3.11, and 257 with 3.13.
SUITES = ("bookworm", "trixie")

# No more than the daemon itself requires, so that a missing dependency is noticed; dbus, because systemd-run needs it;
# bash-completion; and the programs in the commands of the README.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "bash-completion",
    "python3",
    "iproute2",
    "jq",
    "make",
    "netcat-openbsd",
    "nftables",
    "sudo",
)

# Services of a plain root that have no place in a container without a console and without a kernel of its own. Left
# in, they fail, and a machine that is "degraded" from the beginning hides what a test breaks.
MASKED = ("console-getty.service", "systemd-modules-load.service")

# Increase it when another change of create() changes the contents of a root.
RECIPE = 1

CREATE_TIMEOUT = 600.0  # seconds; ten times what it takes here, for a slow mirror
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv", "dpkg-buildpackage", "dh")


def missing() -> str | None:
    """What this machine lacks to boot a root with echod on it, as a sentence; None when nothing is missing."""
    if os.geteuid() != 0:
        return "booting a root takes root's rights"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: debootstrap systemd-container dpkg-dev debhelper)"
    return None


def cache() -> Path:
    """The directory of the roots: SYSTEM_TEST_CACHE, or echod-tests in the user's cache directory."""
    named = os.environ.get("SYSTEM_TEST_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else user / "echod-tests"


def create(suite: str) -> Path:
    """The suite's root, from the cache or new. If two runs need the same root, the second waits for the first.

    Raises RuntimeError with debootstrap's last words if it fails, subprocess.TimeoutExpired if it does not end.
    """
    recipe = repr((suite, PACKAGES, MASKED, RECIPE))
    key = f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    root = cache() / key
    # A root contains set-user-id programs that are never updated, so other users must have no access.
    cache().mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(cache() / f"{key}.lock"):
        if not root.exists():
            part = cache() / f"{key}.part"
            shutil.rmtree(part, ignore_errors=True)
            debootstrap(suite, part)
            (part / "etc/hostname").write_text("echod-test\n")
            for unit in MASKED:
                (part / "etc/systemd/system" / unit).symlink_to("/dev/null")
            for archive in (part / "var/cache/apt/archives").glob("*.deb"):
                archive.unlink()
            part.rename(root)
    return root


def debootstrap(suite: str, target: Path) -> None:
    """A minimal Debian in `target`, which must not exist, within CREATE_TIMEOUT."""
    # debootstrap mounts /proc and /sys in the target and leaves them there when it is killed, for the next rmtree to
    # walk into. In namespaces of its own its mounts and its children end with it, whatever happens.
    isolated = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--")
    options = ("--variant=minbase", f"--include={','.join(PACKAGES)}")
    done = subprocess.run(
        (*isolated, "debootstrap", *options, suite, str(target), mirror()),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CREATE_TIMEOUT,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-8:])
        raise RuntimeError(f"debootstrap of {suite} failed with {done.returncode}:\n{last}")


@functools.cache
def mirror() -> str:
    """SYSTEM_TEST_MIRROR, or the mirror that this machine's apt takes Debian from.

    Apt itself is queried, because sources.list has two formats and any number of files.
    """
    named = os.environ.get("SYSTEM_TEST_MIRROR")
    if named:
        return named
    query = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    found = subprocess.run(query, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    if not found:
        raise RuntimeError("apt has no Debian mirror: run apt-get update, or name one in SYSTEM_TEST_MIRROR")
    return found[0]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at `path`; it ends with the process, so a killed run leaves none behind."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
