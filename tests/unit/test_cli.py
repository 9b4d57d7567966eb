"""The command line, run in this process: what it prints, where, and its exit status."""

import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import echod
from echod import cli, daemon
from echod.config import sources
from echod.config.settings import Key, keys
from echod.log import journald
from echod.net.address import Endpoint
from tests.journald import Journald

TOML = "{file}"
"""Stands in an expected sentence for the file that the test has written."""


class Said(NamedTuple):
    """What a command has written, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """The lines of standard error, without the prefix."""
        lines = self.err.splitlines()
        assert all(line.startswith("echod: ") for line in lines), self.err
        return [line.removeprefix("echod: ") for line in lines]


Echod = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Echod:
    """Run the command with these arguments and variables, while nothing else is set and no file exists."""
    for name in list(os.environ):
        if name.startswith("ECHOD_") or name == "JOURNAL_STREAM":
            monkeypatch.delenv(name)
    monkeypatch.setattr(sources, "DEFAULT_FILE", str(tmp_path / "default.toml"))
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "journald"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delattr(daemon, "Supervisor")  # nothing here gets as far as serving
    monkeypatch.setattr(daemon, "ignore_others", lambda: None)  # the tests after this one inherit ignored signals

    def run(*arguments: str, **environment: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["echod", *arguments])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            cli.main()
        code = left.value.code
        assert isinstance(code, int)
        return Said(code, *capfd.readouterr())

    return run


def test_help(run: Echod) -> None:
    """`--help` names each flag, its variable and its default, fits a terminal of 80 columns, and is no error."""
    said = run("--help")
    assert (said.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= 80
    words = " ".join(said.out.split())
    for key in keys():
        assert f"{key.flag} {key.kind.metavar}" in words or f"{key.flag} [{key.kind.metavar}]" in words
        assert f"[{key.kind.show(key.default)}] (variable {key.variable})" in words
    for word in (
        "--config FILE",
        "ECHOD_CONFIG",
        "--check-config",
        "--print-config",
        "--version",
        "64",
        "69",
        "70",
        "74",
        "78",
    ):
        assert word in words


def test_version(run: Echod) -> None:
    """`--version` prints the version, and nothing else."""
    assert run("--version") == (0, f"echod {echod.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prot", "7"], "unknown argument '--prot'; did you mean '--port'? (see echod --help)"),
        (["--prot=7"], "unknown argument '--prot'; did you mean '--port'? (see echod --help)"),
        (["--idle-timeout", "7"], "unknown argument '--idle-timeout'; did you mean '--limits-idle-timeout'?"),
        (["-v"], "unknown argument '-v'"),
        (["serve"], "unknown argument 'serve'"),
        (["--po", "7"], "unknown argument '--po'"),
        (["--port"], "argument --port: expected one argument (see echod --help)"),
        (["--host"], "argument --host: expected one argument (see echod --help)"),
        (["--check-config=yes"], "argument --check-config: ignored explicit argument 'yes' (see echod --help)"),
        (["--\udcff"], "unknown argument '--\\udcff'"),
    ],
)
def test_usage(run: Echod, arguments: list[str], sentence: str) -> None:
    """An unknown argument is reported in one sentence, with the most similar known one: status 64."""
    said = run(*arguments)
    assert (said.code, said.out, len(said.sentences)) == (os.EX_USAGE, "", 1)
    assert said.sentences[0].startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = \n", "{file}:1:8: "),
        ('host = "a\nport = 1\n', "{file}:1:10: "),
        ("[limits]\nkeepalive = '1h'\nkeepalive = '2h'", "{file}:3:"),
        ("prot = 7\n", "{file}: unknown key 'prot'; did you mean 'port'?"),
        ("[limit]\n", "{file}: unknown key 'limit'; did you mean 'limits'?"),
        (
            "[limits]\nidle_timout = 1\n",
            "{file}: unknown key 'limits.idle_timout'; did you mean 'limits.idle_timeout'?",
        ),
        ("limits = 5\n", "{file}: limits must be a table: write [limits] and its keys below"),
        ("port = '10000x'\n", "{file}: port is '10000x', but must be a whole number from 0 to 65535; 0 lets "),
        ("port = 65536\n", "{file}: port is 65536, but must be "),
        ("port = 1.5\n", "{file}: port is 1.5, but must be "),
        ("port = true\n", "{file}: port is True, but must be "),
        ("host = 7\n", "{file}: host is 7, but must be a name, an address, "),
        ("host = []\n", "{file}: host is [], but must be "),
        ("host = ['a', 7]\n", "{file}: host is 7, but must be "),
        ("chunk_size = 0\n", "{file}: chunk_size is 0, but must be a size from 1 byte to 16MiB, "),
        ("chunk_size = '64kB'\n", "{file}: chunk_size is '64kB', but must be "),
        ("workers = 'all'\n", "{file}: workers is 'all', but must be a whole number from 1 to 256, or 'auto' "),
        ("[limits]\nidle_timeout = '3 fortnights'\n", "{file}: limits.idle_timeout is '3 fortnights', but must be a "),
        (
            "[limits]\nkeepalive = '10h'\n",
            "{file}: limits.keepalive is '10h', but must be a duration from 1s to 32767s",
        ),
        ("[limits]\ndrain_timeout = -1\n", "{file}: limits.drain_timeout is -1, but must be a duration from 0 to 1h"),
        ("[limits]\nmax_connections = 0\n", "{file}: limits.max_connections is 0, but must be "),
        ("[log]\nlevel = 'loud'\n", "{file}: log.level is 'loud', but must be one of debug, info, warning, error"),
        ("[log]\npayload = 'perhaps'\n", "{file}: log.payload is 'perhaps', but must be true or false"),
    ],
)
@pytest.mark.parametrize("then", ["--check-config", "--print-config", "--log-connections"])
def test_wrong_file(run: Echod, tmp_path: Path, text: str, sentence: str, then: str) -> None:
    """A problem in a file is reported in one sentence that names the file, for any command: status 78."""
    file = tmp_path / "echod.toml"
    file.write_text(text)
    said = run("--config", str(file), then)
    assert (said.code, said.out, len(said.sentences)) == (os.EX_CONFIG, "", 1)
    assert said.sentences[0].startswith(sentence.replace(TOML, str(file)))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.toml", "{name}: cannot be read: No such file or directory; "),
        (".", "{name}: cannot be read: Is a directory; "),
        ("latin1.toml", "{name}: byte 8 is not UTF-8; save the file as UTF-8"),
    ],
)
@pytest.mark.parametrize("by_variable", [True, False])
def test_unreadable_file(run: Echod, tmp_path: Path, name: str, sentence: str, by_variable: bool) -> None:
    """A file that cannot be read, named by flag or variable, is reported with the reason: status 78."""
    (tmp_path / "latin1.toml").write_bytes(b'host = "\xe9"')
    path = str(tmp_path / name)
    said = run(ECHOD_CONFIG=path) if by_variable else run("--config", path)
    assert said.code == os.EX_CONFIG
    assert len(said.sentences) == 1
    assert said.sentences[0].startswith(sentence.format(name=Path(path)))


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_file_without_a_name(run: Echod, name: str) -> None:
    """A directory is reported like any other file that cannot be read: status 78."""
    for said in (run("--config", name), run(ECHOD_CONFIG=name)):
        assert (said.code, len(said.sentences)) == (os.EX_CONFIG, 1)
        assert "cannot be read" in said.sentences[0]


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ECHOD_PROT", "7", "ECHOD_PROT: unknown variable; did you mean 'ECHOD_PORT'?"),
        (
            "ECHOD_LIMITS_KEEPALIVE",
            "1",
            "ECHOD_LIMITS_KEEPALIVE: unknown variable; did you mean 'ECHOD_LIMITS__KEEPALIVE'?",
        ),
        ("ECHOD_PORT", "seven", "ECHOD_PORT is 'seven', but must be a whole number from 0 to 65535"),
        ("ECHOD_PORT", "", "ECHOD_PORT is '', but must be "),
        ("ECHOD_LIMITS__IDLE_TIMEOUT", "soon", "ECHOD_LIMITS__IDLE_TIMEOUT is 'soon', but must be a duration "),
        ("ECHOD_LOG__CONNECTIONS", "maybe", "ECHOD_LOG__CONNECTIONS is 'maybe', but must be true or false"),
        ("ECHOD_HOST", "[1", "ECHOD_HOST is "),
    ],
)
def test_wrong_variable(run: Echod, variable: str, value: str, sentence: str) -> None:
    """A problem with a variable is reported in one sentence that names the variable: status 78."""
    said = run(**{variable: value})
    assert (said.code, said.out, len(said.sentences)) == (os.EX_CONFIG, "", 1)
    assert said.sentences[0].startswith(sentence)


@pytest.mark.parametrize(
    ("flag", "value"), [("--port", "-1"), ("--chunk-size", "17MiB"), ("--workers", "few"), ("--log-format", "xml")]
)
def test_wrong_flag(run: Echod, flag: str, value: str) -> None:
    """An invalid value of a flag is reported with the name of the flag: status 78."""
    said = run(f"{flag}={value}")
    assert (said.code, len(said.sentences)) == (os.EX_CONFIG, 1)
    assert said.sentences[0].startswith(f"{flag} is {value!r}, but must be ")


def test_several_problems(run: Echod, tmp_path: Path) -> None:
    """All problems are reported at once, each with its place."""
    file = tmp_path / "echod.toml"
    file.write_text("prot = 1\n[log]\nlevel = 'loud'\n")
    said = run("--config", str(file), "--workers", "none", ECHOD_PORT="x", ECHOD_CHUNKSIZE="1")
    assert said.code == os.EX_CONFIG
    for place in (f"{file}: unknown key", f"{file}: log.level", "--workers is", "ECHOD_PORT is", "ECHOD_CHUNKSIZE: "):
        assert sum(sentence.startswith(place) for sentence in said.sentences) == 1
    assert len(said.sentences) == 5


def test_check_config(run: Echod) -> None:
    """`--check-config` prints OK and nothing else for a valid configuration."""
    assert run("--check-config", "--host", "localhost", "--host", "unix:@echod", "--port", "0") == (0, "OK\n", "")


def test_check_config_looks_at_every_host(run: Echod, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check-config` reports each host that does not resolve, or is not an address of this machine: status 69."""

    def getaddrinfo(host: str, *_: object, **__: object) -> object:
        if host == "192.0.2.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    hosts = ["nowhere", "192.0.2.1", "127.0.0.1", "unix:relative", "elsewhere"]
    said = run("--check-config", *(f"--host={host}" for host in hosts))
    assert (said.code, said.out) == (os.EX_UNAVAILABLE, "")
    first, *others = said.sentences
    assert first.startswith("host 'nowhere' does not resolve: Name or service not known; ")
    assert any(other.startswith("cannot listen on 192.0.2.1:10000: this machine does not have") for other in others)
    assert "'unix:relative'" in " ".join(others)
    assert "'elsewhere'" in " ".join(others)


@pytest.mark.parametrize(
    ("seconds", "code", "out", "err"),
    [
        (0.012, os.EX_OK, "OK; resolving host 'echo.example' took 12 ms\n", ""),
        (8.0, os.EX_OK, "OK; resolving host 'echo.example' took 8 s\n", "echod: warning: "),
        (20.0, os.EX_UNAVAILABLE, "", "echod: "),
    ],
)
def test_slow_name_servers(
    run: Echod, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int, out: str, err: str
) -> None:
    """`--check-config` says how long resolving took, warns from a second on, and fails where the daemon would."""
    times = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(cli, "monotonic", lambda: next(times))
    monkeypatch.setattr(cli, "resolve", lambda host: [Endpoint(socket.AF_INET, "127.0.0.1")])
    said = run("--check-config", "--host=echo.example", "--port=0")
    assert (said.code, said.out) == (code, out)
    expected = f"{err}resolving host 'echo.example' took {seconds:.0f} s; after 20 s, a start or reload fails; "
    assert said.err.startswith(expected) if err else not said.err


def test_warnings_of_a_check(run: Echod) -> None:
    """A valid configuration that may be a mistake gives a warning on standard error, besides OK."""
    said = run("--check-config", ECHOD_HOST="", ECHOD_SERVICE_HOST="10.0.0.1", ECHOD_PORT="tcp://10.0.0.1:7")
    assert (said.code, said.out) == (0, "OK\n")
    assert sorted(sentence.split()[1] for sentence in said.sentences) == ["ECHOD_HOST", "ECHOD_PORT,"]
    assert all(sentence.startswith("warning: ") for sentence in said.sentences)


def test_print_config(run: Echod, tmp_path: Path) -> None:
    """`--print-config` prints every setting with its origin, as a file that can be read again."""
    file = tmp_path / "echod.toml"
    file.write_text("chunk_size = 16\n[limits]\nidle_timeout = '90'\n")
    beside = tmp_path / "echod.toml.d" / "more.toml"
    beside.parent.mkdir()
    beside.write_text("workers = 'auto'\n")
    said = run("--config", str(file), "--print-config", "--host", "", "--host", "::1", ECHOD_LOG__LEVEL="debug")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert 'host = ["", "::1"]  # flag --host' in lines
    assert f'chunk_size = "16"  # file {file}' in lines
    assert f'idle_timeout = "1min 30s"  # file {file}' in lines
    assert f'workers = "auto"  # file {beside}' in lines
    assert 'level = "debug"  # environment ECHOD_LOG__LEVEL' in lines
    assert "port = 10000  # default" in lines
    again = tmp_path / "again.toml"
    again.write_text(said.out)
    assert [line.partition("  #")[0] for line in run("--config", str(again), "--print-config").out.splitlines()] == (
        [line.partition("  #")[0] for line in lines]
    )


def test_print_and_check(run: Echod) -> None:
    """With both options, only the settings are on standard output, and OK is on standard error."""
    said = run("--print-config", "--check-config")
    assert said.code == 0
    assert said.out.startswith("host = ")
    assert "OK" not in said.out.splitlines()
    assert said.err == "OK\n"


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.name)
def test_each_flag(run: Echod, key: Key) -> None:
    """Each setting has a flag, which accepts what `--print-config` prints."""
    value = key.kind.show(key.default).strip('"')
    said = run(f"{key.flag}={value}", "--print-config")
    assert f"{key.path[-1]} = {key.kind.show(key.default)}  # flag {key.flag}" in said.out.splitlines()


def test_flag_without_a_value(run: Echod) -> None:
    """The flag of a bool needs no value to be true."""
    assert "payload = true  # flag --log-payload" in run("--log-payload", "--print-config").out.splitlines()


def journal_stream() -> str:
    """JOURNAL_STREAM as systemd sets it when it connects standard error to its journal."""
    status = os.fstat(2)
    return f"{status.st_dev}:{status.st_ino}"


def test_problems_in_the_journal(run: Echod, tmp_path: Path) -> None:
    """Each problem is an event there, with the sentence that is otherwise printed; standard error gets nothing."""
    flags = ["--port", "x", "--workers", "0"]
    told = run(*flags)
    with Journald(tmp_path / "journald") as found:
        assert run(*flags, JOURNAL_STREAM=journal_stream()) == (os.EX_CONFIG, "", "")
        entries = found.entries()
    assert [entry.event["message"] for entry in entries] == told.sentences
    for entry in entries:
        assert (entry["PRIORITY"], entry["ECHOD_EVENT"]) == ("3", "cannot_start")
        assert entry["ECHOD_PROBLEM"] == entry.event["message"] == entry.event["problem"]


def test_warnings_in_the_journal(run: Echod, tmp_path: Path) -> None:
    """Warnings are events there, as when echod serves; OK stays on standard output."""
    with Journald(tmp_path / "journald") as found:
        said = run("--check-config", ECHOD_PORT="tcp://10.0.0.1:7", JOURNAL_STREAM=journal_stream())
        (entry,) = found.entries()
    assert said == (0, "OK\n", "")
    assert (entry["PRIORITY"], entry["ECHOD_EVENT"]) == ("4", "config_warning")
    assert entry.event["message"].startswith("ECHOD_PORT: ")


def test_problems_in_a_journal_without_its_socket(run: Echod) -> None:
    """Problems are events on standard error, with the priority of errors (sd-daemon(3))."""
    said = run("--prot", JOURNAL_STREAM=journal_stream())
    assert (said.code, said.err[:3], said.err.count("\n")) == (os.EX_USAGE, "<3>", 1)
    assert json.loads(said.err[3:])["message"].startswith("unknown argument '--prot'")


def test_bug(run: Echod, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is one event with its traceback inside: status 70."""

    def load(*_: object, **__: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(cli, "load", load)
    said = run()
    assert (said.code, said.out, said.err.count("\n")) == (os.EX_SOFTWARE, "", 1)
    event = json.loads(said.err)
    assert (event["event"], event["level"], event["error"]) == (("bug", "critical", "RuntimeError('unexpected')"))
    assert event["traceback"].startswith("Traceback")


def test_interrupted(run: Echod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before echod serves ends it silently, with the status that shells use: 130."""

    def wait_for(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon, "wait_for", wait_for)
    assert run() == (130, "", "")


@pytest.mark.parametrize(("soft", "hard", "warned"), [(1024, 1024, True), (1024, 20000, False), (20000, 20000, False)])
def test_descriptors(run: Echod, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, warned: bool) -> None:
    """echod raises its limit of descriptors, and warns if they are fewer than the connections allowed."""
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: taken.append(limits))
    said = run("--host", "unix:/no/such/directory/echo")  # cannot be opened
    assert said.code == os.EX_UNAVAILABLE
    assert taken in ([(hard, hard)], []) if soft == hard else taken == [(hard, hard)]
    warnings = [line for line in said.err.splitlines() if '"config_warning"' in line]
    assert len(warnings) == warned
    if warned:
        assert "limits.max_connections is 10000" in json.loads(warnings[0])["message"]
        assert "allows only 960;" in json.loads(warnings[0])["message"]
