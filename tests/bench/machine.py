"""The machine and the interpreter: without them no figure is meaningful."""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import sys
from pathlib import Path

PYTHON = "/usr/bin/python3"
"""Debian's interpreter, which an installed echod runs on; one that is built without PGO costs 4 to 15 % more."""


def missing(options: argparse.Namespace) -> str:
    """A sentence about the first requirement that is missing here, or ''."""
    if not options.any_python and not _is_debians():
        return f"this is not Debian's Python, {PYTHON}, but {_interpreter()}; --any-python measures with it too"
    if not shutil.which("cc"):
        return "the load generator is compiled on the spot, and there is no C compiler here: install one (cc)"
    if "uvloop" in options.servers and not importlib.util.find_spec("uvloop"):
        return "this Python has no uvloop: install it, or leave it out by --servers"
    if options.plot and not importlib.util.find_spec("matplotlib"):
        return "this Python has no matplotlib, which --plot needs: install it (pip install matplotlib)"
    if "echoc" in options.cases and not os.access(PYTHON, os.X_OK):
        return f"the start of echoc is measured with {PYTHON}, which is not here: leave the case echoc out by --cases"
    for name in ("xinetd", "socat"):
        if name in options.servers and not shutil.which(name):
            return f"{name} is not installed: install it, or leave it out by --servers"
    return ""


def describe() -> str:
    """The machine in a line."""
    python = f"Debian's Python, {PYTHON}" if _is_debians() else f"not Debian's Python, but {_interpreter()}"
    parts = [
        f"{len(os.sched_getaffinity(0))} CPUs ({_cpu_model()})",
        f"kernel {platform.release()}",
        f"{python}, {platform.python_version()}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        parts.insert(3, f"uvloop {importlib.metadata.version('uvloop')}")
    return ", ".join(parts)


def raise_limit() -> None:
    """Allow the generator and the servers as many descriptors as the hard limit does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interpreter() -> str:
    """The file to which the command of a virtual environment refers."""
    return os.path.realpath(sys.executable)


def _is_debians() -> bool:
    return os.path.exists("/etc/debian_version") and _interpreter() == os.path.realpath(PYTHON)


def _cpu_model() -> str:
    """The kernel's name for the processor, proc_cpuinfo(5)."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return "unknown"
