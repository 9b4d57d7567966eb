"""Every parser, with almost valid and arbitrary input: it is accepted or refused in a sentence; never a traceback."""

import os
import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from echod import cli
from echod.client.check.threshold import Threshold
from echod.client.cli import VERBS, make_parser
from echod.client.errors import ClientError
from echod.client.options import target_of
from echod.client.target import parse_target
from echod.config import types
from echod.config.settings import keys
from echod.errors import EX_CONFIG, EX_OK, EX_UNAVAILABLE, EX_USAGE, EchodError
from echod.net.address import resolve
from echod.parent import last_good
from echod.systemd import notify
from echod.systemd.listen_fds import listen_fds
from echod.systemd.notify import Notifier

REFUSALS = {EX_USAGE, EX_UNAVAILABLE, EX_CONFIG}
"""The only exit statuses besides success: the input is wrong."""
ETC = (Path(__file__).parents[2] / "etc/echod.toml").read_bytes()
KEYS = list(keys())

bounded = settings(max_examples=60, database=None)

characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
text = st.text(characters, max_size=30)
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), max_size=20)
"""Of variables and of files: the kernel accepts neither a NUL nor, in a variable's name, the sign that ends it."""
numbers = st.integers(-(10**30), 10**30) | st.floats() | st.sampled_from([0, 1, 2**31, 2**63, "9" * 5000])
WORDS = "1h 64KiB infinity auto 0 -1 1e400 ٣ true * [::1] ::1%eth0 unix:@ unix:/x tcp://10.0.0.1:7 INFO 1.5e3us"
words = st.sampled_from([*WORDS.split(), "", "1min 30s", "9" * 400])
values = st.one_of(text, words, numbers.map(str))
toml_values = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), text, words, st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=5,
)


def as_toml(value: Any) -> str:
    """The value as a file may write it; None is no value of TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{types.quoted(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return types.quoted(value) if isinstance(value, str) else str(value).lower()


lines = st.builds(
    lambda key, value: f"{key} = {as_toml(value)}\n".encode(),
    st.sampled_from([key.name for key in KEYS] + ["limits", "log", "prot", "Port", '""']),
    toml_values,
)
damaged = st.builds(
    lambda start, length, junk: ETC[:start] + junk + ETC[start + length :],
    st.integers(0, len(ETC)),
    st.integers(0, 50),
    st.binary(max_size=10),
)
files = st.lists(lines, max_size=4).map(b"".join) | damaged | st.binary(max_size=40)


@pytest.fixture(autouse=True)
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve addresses only: no name leaves this process."""
    ask = socket.getaddrinfo

    def numeric(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        return ask(host, port, *arguments, **options | {"flags": socket.AI_NUMERICHOST})

    monkeypatch.setattr(socket, "getaddrinfo", numeric)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for all examples of a test."""
    return tmp_path_factory.mktemp("parsers")


def status(arguments: Iterable[str], environ: dict[str, str]) -> int:
    """The exit status of echod; any error that is not its own passes through."""
    try:
        return cli.run([*arguments, "--print-config"], environ)
    except EchodError as error:
        return error.exit_code
    except SystemExit as left:  # --help and --version
        return int(left.code or EX_OK)


def check_status(code: int) -> None:
    """Assert that the input was accepted or refused."""
    assert code in {EX_OK, *REFUSALS}


@bounded
@given(main=files, extra=st.dictionaries(st.sampled_from(["a.toml", "b.toml", ".c.toml", "d"]), files, max_size=2))
@example(main=b"port = " + b"9" * 5000, extra={})
@example(main=b"a=" + b"[" * 5000, extra={})
def test_files(directory: Path, main: bytes, extra: dict[str, bytes]) -> None:
    """A configuration file, with files in its *.toml.d directory."""
    file = directory / "echod.toml"
    file.write_bytes(main)
    more = directory / "echod.toml.d"
    more.mkdir(exist_ok=True)
    for name, content in extra.items():
        (more / name).write_bytes(content)
    try:
        check_status(status(["--config", str(file)], {}))
    finally:
        for name in extra:
            (more / name).unlink()


variables = st.one_of(
    st.sampled_from(
        [key.variable for key in KEYS] + ["ECHOD_CONFIG", "ECHOD_PROT", "ECHOD_2_PORT", "ECHOD_SERVICE_HOST"]
    ),
    names.map("ECHOD_{}".format),
)


@bounded
@given(st.dictionaries(variables, values, max_size=4))
def test_variables(environ: dict[str, str]) -> None:
    """Variables of the environment, settings and others."""
    check_status(status(() if "ECHOD_CONFIG" in environ else ["--config", os.devnull], environ))


flags = st.sampled_from([key.flag for key in KEYS] + ["--config", "--check", "--version", "--help", "--", "-x"])


@bounded
@given(st.lists(flags | values | st.builds("{}={}".format, flags, values), max_size=4))
def test_flags(arguments: list[str]) -> None:
    """Arguments of echod."""
    check_status(status(arguments, {"ECHOD_CONFIG": os.devnull}))


@bounded
@given(values)
def test_hosts(host: str) -> None:
    """A host, when it is resolved."""
    try:
        assert resolve(host)
        code = EX_OK
    except EchodError as error:
        code = error.exit_code
    check_status(code)


@bounded
@given(values)
def test_sizes_and_durations(value: str) -> None:
    """The notations of sizes and durations, which raise nothing but ValueError."""
    for parse in (types.parse_size, types.parse_duration):
        try:
            assert parse(value) >= 0
        except ValueError:
            pass


@bounded
@given(files)
def test_stored_settings(content: bytes) -> None:
    """The settings that another version has stored: they are used or ignored, and the descriptor is closed."""

    fd = os.memfd_create("settings")
    os.write(fd, content)
    found = last_good.stored([fd])
    assert found is None or not found.warnings
    with pytest.raises(OSError):
        os.fstat(fd)


# A million descriptors take seconds to look at, so that a few such counts would last longer than a test may.
few_or_far_too_many = values.filter(lambda count: len(count) not in (6, 7))


@bounded
@given(count=few_or_far_too_many, passed=values, pid=st.just(str(os.getpid())) | values)
@example(count="9" * 5000, passed="", pid=str(os.getpid()))
@example(count="4294967295", passed="", pid=str(os.getpid()))
def test_passed_descriptors(count: str, passed: str, pid: str) -> None:
    """LISTEN_FDS and its companions: descriptors, or a warning."""
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": passed}
    assert len(listen_fds(environ).fds) <= 1 << 20
    assert environ == {}


# sdnotify leaves its socket to the garbage collector if it cannot connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning")
@bounded
@given(values)
@example("/" + "x" * 200)
@example("@" + "x" * 200)
def test_service_managers_variables(value: str) -> None:
    """NOTIFY_SOCKET and WATCHDOG_USEC: a notifier that sends nothing, and no watchdog."""
    os.environ["NOTIFY_SOCKET"] = value
    try:
        with closing(Notifier(os.environ)) as notifier:
            notifier.status("any")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    seconds = notify.watchdog_seconds({"WATCHDOG_USEC": value})
    assert seconds is None or seconds > 0


OPTIONS = "-m -f -4 -6 -w -c -n -i --source --json --connect-timeout --timeout --size --duration --connections --help"
options = st.sampled_from(OPTIONS.split())


@settings(max_examples=100, database=None)
@given(verb=st.sampled_from(["", *VERBS]), arguments=st.lists(options | values, max_size=4))
def test_echocs_arguments(verb: str, arguments: list[str]) -> None:
    """Arguments of echoc, for each verb."""
    try:
        target_of(make_parser(verb).parse_args(arguments))
        code = 0
    except ClientError as error:
        code = error.exit_code
    except SystemExit as left:  # --help and --version, and errors of `check`
        code = int(left.code or 0)
    assert code in {0, 2, 3}


@bounded
@given(
    host=values | st.none(),
    port=values | st.none(),
    environment=st.dictionaries(st.sampled_from(["ECHOC_HOST", "ECHOC_PORT"]), values),
)
def test_echocs_target(host: str | None, port: str | None, environment: dict[str, str]) -> None:
    """The target of echoc, from arguments and variables."""
    try:
        code = 0 if str(parse_target(host, port, environment=environment)) else 1
    except ClientError as error:
        code = error.exit_code
    assert code in {0, 2}


@bounded
@given(values | st.text("@~:.-0123456789", max_size=10), st.floats())
@example("--1", 1.0)
@example(".", 1.0)
def test_thresholds(value: str, measured: float) -> None:
    """A range of a monitoring plugin, which raises nothing but ValueError."""
    try:
        Threshold(value).alerts(measured)
    except ValueError:
        pass
