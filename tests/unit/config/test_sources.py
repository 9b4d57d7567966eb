"""config.sources: which source wins, the origin of each value, and one clear sentence for each problem."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from echod.config import sources
from echod.config.names import nearest
from echod.config.settings import Settings, keys
from echod.config.sources import Loaded, load
from echod.errors import ConfigError

KEYS = {key.name: key for key in keys()}
PORT, HOST = KEYS["port"].kind.expected, KEYS["host"].kind.expected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a configuration that may not exist yet."""
    return tmp_path / "echod.toml"


@pytest.fixture(autouse=True)
def no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default path in place of /etc/echod.toml, so that the file of this machine does not matter."""
    default = tmp_path / "etc" / "default.toml"
    default.parent.mkdir()
    monkeypatch.setattr(sources, "DEFAULT_FILE", str(default))
    return default


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter, unlike that of pytest."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's privileges for a moment, since root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def problems(config: object = None, flags: Mapping[str, Any] | None = None, /, **environ: str) -> list[str]:
    """The problems that loading an invalid configuration raises."""
    with pytest.raises(ConfigError) as caught:
        read(config, flags, **environ)
    assert caught.value.exit_code == 78
    return list(caught.value.problems)


def read(config: object = None, flags: Mapping[str, Any] | None = None, /, **environ: str) -> Loaded:
    """Load a configuration, with flags by the names of their keys."""
    named = {KEYS[name].path: value for name, value in (flags or {}).items()}
    return load(None if config is None else str(config), named, environ)


class TestPrecedence:
    def test_flags_over_variables_over_files_over_defaults(self, file: Path) -> None:
        """Each key is overridden by itself, and has its origin."""
        file.write_text("port = 1\nworkers = 1\nchunk_size = 1\nhost = '::'\n[log]\nlevel = 'error'")
        drop_ins = Path(f"{file}.d")
        drop_ins.mkdir()
        (drop_ins / "20-b.toml").write_text("port = 3\nworkers = 3\nchunk_size = 3")
        (drop_ins / "10-a.toml").write_text("port = 2\nworkers = 2\nchunk_size = 2\n[log]\nformat = 'console'")
        (drop_ins / "30-c.conf").write_text("port = 99")
        loaded = read(file, {"port": "5"}, ECHOD_PORT="4", ECHOD_WORKERS="4", UNRELATED="x")
        assert (loaded.settings.port, loaded.settings.workers, loaded.settings.chunk_size) == (5, 4, 3)
        assert (loaded.settings.host, loaded.settings.log.level) == (("::",), "error")
        assert loaded.settings.log.format == "console"
        assert {".".join(path): str(origin) for path, origin in loaded.origins.items()} == {
            "port": "flag --port",
            "workers": "environment ECHOD_WORKERS",
            "chunk_size": f"file {drop_ins}/20-b.toml",
            "host": f"file {file}",
            "log.level": f"file {file}",
            "log.format": f"file {drop_ins}/10-a.toml",
        }
        assert loaded.files == [str(file), f"{drop_ins}/10-a.toml", f"{drop_ins}/20-b.toml"]
        assert loaded.warnings == []

    def test_without_any_source_there_are_the_defaults(self) -> None:
        """No file has to exist."""
        loaded = read()
        assert loaded == Loaded(Settings(), {}, [], [])

    def test_every_key_by_its_variable_and_its_flag(self) -> None:
        """Every key can be set by variable and by flag, as text."""
        texts = {
            "host": ("::1", ("::1",)),
            "port": ("7", 7),
            "unix_mode": ("0600", "0600"),
            "chunk_size": ("1K", 1024),
            "workers": ("auto", "auto"),
            "handover": ("false", False),
            "limits.max_connections": ("5", 5),
            "limits.max_connections_per_source": ("6", 6),
            "limits.ipv6_source_prefix": ("56", 56),
            "limits.kernel_memory": ("256MiB", 256 << 20),
            "limits.idle_timeout": ("1min 30s", 90.0),
            "limits.stall_timeout": ("1.5", 1.5),
            "limits.drain_timeout": ("100ms", 0.1),
            "limits.keepalive": ("1h", 3600.0),
            "limits.keepalive_interval": ("10s", 10.0),
            "limits.keepalive_probes": ("3", 3),
            "log.level": ("debug", "debug"),
            "log.format": ("console", "console"),
            "log.connections": ("false", False),
            "log.payload": ("true", True),
        }
        assert list(texts) == list(KEYS)
        by_variable = read(**{KEYS[name].variable: text for name, (text, _) in texts.items()})
        by_flag = read(None, {name: text for name, (text, _) in texts.items()})
        for name, (_, value) in texts.items():
            assert KEYS[name].value(by_variable.settings) == KEYS[name].value(by_flag.settings) == value
            assert str(by_variable.origins[KEYS[name].path]) == f"environment {KEYS[name].variable}"
            assert str(by_flag.origins[KEYS[name].path]) == f"flag {KEYS[name].flag}"

    def test_a_flag_without_a_value(self) -> None:
        """`--log-payload` alone is true."""
        assert read(None, {"log.payload": True}).settings.log.payload


class TestWhichFile:
    def test_the_default_is_read_if_it_is_there(self, no_default_file: Path) -> None:
        """The default file is optional, and its drop-ins are read even without it."""
        drop_ins = Path(f"{no_default_file}.d")
        drop_ins.mkdir()
        (drop_ins / "a.toml").write_text("workers = 2")
        assert read().files == [f"{drop_ins}/a.toml"]
        no_default_file.write_text("port = 7")
        assert read().files == [str(no_default_file), f"{drop_ins}/a.toml"]
        assert (read().settings.port, read().settings.workers) == (7, 2)

    def test_a_named_one_instead(self, file: Path, no_default_file: Path) -> None:
        """`--config` overrides ECHOD_CONFIG, which overrides the default path; only one of them is read."""
        no_default_file.write_text("port = 1\nworkers = 9")
        by_variable = file.with_name("variable.toml")
        by_variable.write_text("port = 2")
        file.write_text("port = 3")
        assert read(ECHOD_CONFIG=str(by_variable)).settings.port == 2
        loaded = read(file, ECHOD_CONFIG=str(by_variable))
        assert (loaded.settings.port, loaded.settings.workers) == (3, 1)

    def test_a_named_one_must_be_there(self, file: Path) -> None:
        """A file that was named must exist, whether a flag or a variable named it."""
        expected = (
            f"{file}: cannot be read: No such file or directory; name a file that exists and is readable by this user"
        )
        assert problems(file) == problems(ECHOD_CONFIG=str(file)) == [expected]

    def test_it_may_be_a_pipe(self) -> None:
        """`--config <(…)` works."""
        reads, writes = os.pipe()
        os.write(writes, b"port = 7")
        os.close(writes)
        assert read(f"/dev/fd/{reads}").settings.port == 7
        os.close(reads)

    @pytest.mark.parametrize(("named", "shown"), [("/", "/"), ("..", "..")])
    def test_a_directory(self, named: str, shown: str) -> None:
        """A directory in place of a file is a problem."""
        assert (
            problems(named)
            == problems(ECHOD_CONFIG=named)
            == [f"{shown}: cannot be read: Is a directory; name a file that exists and is readable by this user"]
        )

    def test_an_empty_name(self) -> None:
        """An empty name is a problem that names the flag or the variable."""
        assert problems("") == [f"--config is empty; name a file, or leave it out for {sources.DEFAULT_FILE}"]
        assert problems(ECHOD_CONFIG="") == [
            f"ECHOD_CONFIG is empty; name a file, or leave it out for {sources.DEFAULT_FILE}"
        ]

    def test_a_drop_in_that_is_none(self, file: Path) -> None:
        """A name that begins with a dot, a FIFO and a directory are ignored with a warning; a link to null masks."""
        drop_ins = Path(f"{file}.d")
        drop_ins.mkdir()
        (drop_ins / ".#10.toml").symlink_to("me@host.1:2")
        (drop_ins / "._20.toml").write_bytes(b"\0")
        os.mkfifo(drop_ins / "30.toml")
        (drop_ins / "40.toml").mkdir()
        (drop_ins / "50.toml").symlink_to(os.devnull)
        file.touch()
        loaded = read(file)
        dotted = "ignored; its name begins with a dot, as an editor's temporary files do"
        assert loaded.warnings == [
            f"{drop_ins}/.#10.toml: {dotted}",
            f"{drop_ins}/._20.toml: {dotted}",
            f"{drop_ins}/30.toml: ignored; it is not a regular file",
            f"{drop_ins}/40.toml: ignored; it is not a regular file",
        ]
        assert loaded.files == [str(file), f"{drop_ins}/50.toml"]

    def test_a_drop_in_that_leads_nowhere(self, file: Path) -> None:
        """A link to a file that is gone is a problem: its settings would be missing."""
        drop_in = Path(f"{file}.d") / "10.toml"
        drop_in.parent.mkdir()
        drop_in.symlink_to("missing")
        file.touch()
        (problem,) = problems(file)
        assert problem.startswith(f"{drop_in}: cannot be read: No such file or directory")

    def test_a_byte_order_mark(self, file: Path) -> None:
        """A file may begin with a byte-order mark, as some editors write it, and have CRLF line ends."""
        file.write_bytes(b"\xef\xbb\xbfport = 7\r\nworkers = 2\r\n")
        assert (read(file).settings.port, read(file).settings.workers) == (7, 2)

    def test_what_is_no_directory_of_drop_ins(self, file: Path) -> None:
        """A file in place of FILE.d is ignored."""
        file.write_text("port = 7")
        Path(f"{file}.d").write_text("port = 8")
        assert read(file).settings.port == 7

    def test_what_may_not_be_read(self, open_directory: Path) -> None:
        """A file and a directory that may not be read are both reported."""
        file = open_directory / "echod.toml"
        drop_ins = Path(f"{file}.d")
        file.touch(mode=0)
        drop_ins.mkdir(mode=0)
        with unprivileged():
            assert problems(file) == [
                f"{drop_ins}: cannot be read: Permission denied; make the directory readable by this user",
                f"{file}: cannot be read: Permission denied; name a file that exists and is readable by this user",
            ]
        drop_ins.chmod(0o700)

    def test_what_may_not_be_looked_for(self, open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A default file that cannot be looked for is reported, since it may exist."""
        file = open_directory / "echod.toml"
        monkeypatch.setattr(sources, "DEFAULT_FILE", str(file))
        open_directory.chmod(0o700)
        with unprivileged():
            assert problems() == [
                f"{file}.d: cannot be read: Permission denied; make the directory readable by this user",
                f"{file}: cannot be read: Permission denied; name a file that exists and is readable by this user",
            ]


class TestBadFile:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("port =\n", ":1:7: Invalid value"),
            ("# fine\n\nport 7", ":3:6: Expected '=' after a key in a key/value pair"),
            ("port = 1\nport = 2", ":2:9: Cannot overwrite a value"),
            ('host = "a', ":1:10: Unterminated string"),
            ("[limits", ":1:8: Expected ']' at the end of a table declaration"),
            ("port = " + "9" * 5000, ": Exceeds the limit"),
            ("host = " + "[" * 100_000, ": maximum recursion depth exceeded"),
        ],
        ids=["value", "line", "twice", "string", "table", "digits", "depth"],
    )
    def test_invalid_toml(self, file: Path, text: str, sentence: str) -> None:
        """The sentence has file, line and column, also at the very end, and the problem."""
        file.write_text(text)
        (problem,) = problems(file)
        assert problem.startswith(f"{file}{sentence}")
        assert problem.endswith("; correct the TOML syntax")

    def test_invalid_utf_8(self, file: Path) -> None:
        """The sentence has the offset of the byte."""
        file.write_bytes(b'host = "\xff"')
        assert problems(file) == [f"{file}: byte 8 is not UTF-8; save the file as UTF-8"]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("prot = 7", "unknown key 'prot'; did you mean 'port'?"),
            ("idle_timeout = 7", "unknown key 'idle_timeout'; did you mean 'limits.idle_timeout'?"),
            ("[limits]\nidle_timout = 7", "unknown key 'limits.idle_timout'; did you mean 'limits.idle_timeout'?"),
            ("[limit]\nidle_timeout = 7", "unknown key 'limit'; did you mean 'limits'?"),
            ("xyzzy = 7", "unknown key 'xyzzy'"),
            ("'' = 7", "unknown key ''"),
            ("self = 7", "unknown key 'self'"),
            ("_cli_parse_args = true", "unknown key '_cli_parse_args'"),
            ("_env_prefix = 'X_'", "unknown key '_env_prefix'"),
            ("__pydantic_self__ = 7", "unknown key '__pydantic_self__'"),
            ("[log]\n_env_file = 'x'", "unknown key 'log._env_file'"),
            ("PORT = 7", "unknown key 'PORT'; did you mean 'port'?"),
            ("[Limits]\nidle_timeout = 7", "unknown key 'Limits'; did you mean 'limits'?"),
            ("[log]\nLevel = 'info'", "unknown key 'log.Level'; did you mean 'log.level'?"),
        ],
    )
    def test_an_unknown_key(self, file: Path, text: str, sentence: str) -> None:
        """The sentence suggests the most similar key, if any; options of pydantic-settings are unknown keys too."""
        file.write_text(text)
        assert problems(file) == [f"{file}: {sentence}"]

    @pytest.mark.parametrize(
        "text", ["limits = 5", "limits = [1]", "limits = 'none'", "[[limits]]\nidle_timeout = 7", "limits = true"]
    )
    def test_a_table_that_is_none(self, file: Path, text: str) -> None:
        """A value in place of a table is reported, with the way to write a table."""
        file.write_text(text)
        assert problems(file) == [f"{file}: limits must be a table: write [limits] and its keys below"]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("port = 70000", f"port is 70000, but must be {PORT}"),
            ("port = 'http'", f"port is 'http', but must be {PORT}"),
            ("port = true", f"port is True, but must be {PORT}"),
            ("port = [7]", f"port is [7], but must be {PORT}"),
            ("[port]\nnumber = 7", f"port is {{'number': 7}}, but must be {PORT}"),
            ("host = []", f"host is [], but must be {HOST}"),
            ("host = ['::', 5]", f"host is 5, but must be {HOST}"),
            ("[log]\nlevel = 'loud'", f"log.level is 'loud', but must be {KEYS['log.level'].kind.expected}"),
            (
                "[limits]\nidle_timeout = '1 year'",
                f"limits.idle_timeout is '1 year', but must be {KEYS['limits.idle_timeout'].kind.expected}",
            ),
        ],
    )
    def test_a_wrong_value(self, file: Path, text: str, sentence: str) -> None:
        """The sentence has the file, the value, and what is valid."""
        file.write_text(text)
        assert problems(file) == [f"{file}: {sentence}"]

    @pytest.mark.parametrize("name", ["port", "chunk_size", "limits.idle_timeout", "limits.drain_timeout", "log.level"])
    @pytest.mark.parametrize("value", ["{}", "[[{}]]"])
    def test_a_number_that_python_does_not_show(self, file: Path, name: str, value: str) -> None:
        """A hexadecimal number with more digits than Python converts is reported like any other."""
        file.write_text(f"{name} = {value.format('0x' + 5000 * 'f')}")
        expected = KEYS[name].kind.expected
        assert problems(file) == [f"{file}: {name} is a number that is too large, but must be {expected}"]

    def test_one_that_is_too_long(self, file: Path) -> None:
        """A file that is too long is not read to its end, which may never come."""
        file.write_text("#" * sources.FILE_MAX)
        assert read(file).settings == Settings()
        file.write_text("#" * (sources.FILE_MAX + 1))
        for named in (file, "/dev/zero"):
            assert problems(named) == [f"{named}: is longer than 1048576 bytes; check that it is a configuration file"]

    @pytest.mark.parametrize("begin", ["k", "_"])
    def test_many_problems(self, file: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
        """For each source, the first problems are reported with suggestions, and then the number of the others."""
        looked: list[str] = []

        def look(word: str, words: object) -> str:
            looked.append(word)
            return ""

        monkeypatch.setattr(sources, "nearest", look)
        file.write_text("".join(f"{begin}{number} = 0\n" for number in range(1000)))
        unknown = [f"{file}: unknown key '{begin}{number}'" for number in range(20)]
        assert sorted(problems(file, {"port": "x"})) == sorted(
            [f"--port is 'x', but must be {PORT}", *unknown, f"{file}: 980 more problems of this kind, not shown"]
        )
        assert len(looked) == 20

    def test_the_drop_in_that_is_wrong_is_named(self, file: Path) -> None:
        """A problem in a drop-in names the drop-in, not the main file."""
        file.write_text("port = 7")
        Path(f"{file}.d").mkdir()
        drop_in = Path(f"{file}.d") / "a.toml"
        drop_in.write_text("port = 'x'")
        assert problems(file) == [f"{drop_in}: port is 'x', but must be {PORT}"]

    def test_an_overridden_value_is_not_validated(self, file: Path) -> None:
        """An invalid value or table is no problem if another source overrides it."""
        file.write_text("port = 'x'\nlimits = 5")
        loaded = read(file, {"port": "7"}, ECHOD_LIMITS__KEEPALIVE="60")
        assert (loaded.settings.port, loaded.settings.limits.keepalive) == (7, 60.0)
        assert set(loaded.origins) == {("port",), ("limits", "keepalive")}


class TestBadVariable:
    @pytest.mark.parametrize(
        ("environ", "sentence"),
        [
            ({"ECHOD_PORT": "http"}, f"ECHOD_PORT is 'http', but must be {PORT}"),
            ({"ECHOD_PORT": ""}, f"ECHOD_PORT is '', but must be {PORT}"),
            ({"ECHOD_HOST": "[localhost]"}, f"ECHOD_HOST is '[localhost]', but must be {HOST}"),
            ({"ECHOD_HOST": "[::1]:7"}, f"ECHOD_HOST is '[::1]:7', but must be {HOST}"),
            ({"ECHOD_HOST": '["::1"'}, f"ECHOD_HOST is '[\"::1\"', but must be {HOST}"),
            ({"ECHOD_HOST": '["a", 5]'}, f"ECHOD_HOST is 5, but must be {HOST}"),
            ({"ECHOD_HOST": "[" * 100_000}, f"ECHOD_HOST is {'[' * 100_000!r}, but must be {HOST}"),
            ({"ECHOD_HOST": " , "}, f"ECHOD_HOST is ' , ', but must be {HOST}"),
            (
                {"ECHOD_LOG__LEVEL": "loud"},
                f"ECHOD_LOG__LEVEL is 'loud', but must be {KEYS['log.level'].kind.expected}",
            ),
            ({"ECHOD_PROT": "7"}, "ECHOD_PROT: unknown variable; did you mean 'ECHOD_PORT'?"),
            (
                {"ECHOD_IDLE_TIMEOUT": "7"},
                "ECHOD_IDLE_TIMEOUT: unknown variable; did you mean 'ECHOD_LIMITS__IDLE_TIMEOUT'?",
            ),
            ({"ECHOD_LIMITS": "{}"}, "ECHOD_LIMITS: unknown variable"),
            ({"ECHOD_port": "7"}, "ECHOD_port: unknown variable; did you mean 'ECHOD_PORT'?"),
            ({"ECHOD_2PORT": "7"}, "ECHOD_2PORT: unknown variable; did you mean 'ECHOD_PORT'?"),
        ],
        ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
    )
    def test_one_sentence(self, environ: dict[str, str], sentence: str) -> None:
        """The sentence has the variable, the value, and what is valid."""
        (problem,) = problems(**environ)
        assert problem.startswith(sentence)

    def test_a_wrong_flag(self) -> None:
        """The sentence names the flag."""
        assert problems(None, {"port": "http"}) == [f"--port is 'http', but must be {PORT}"]

    def test_all_at_once(self, file: Path) -> None:
        """All problems of all sources are reported together, always in the same order."""
        file.write_text("prot = 7\nworkers = 0\n[limits]\nkeepalive = 'x'")
        Path(f"{file}.d").mkdir()
        broken = Path(f"{file}.d") / "broken.toml"
        broken.write_text("=")
        unknown = [f"ECHOD_{letter}PORT" for letter in "ZYXW"]
        found = problems(file, {"port": "x"}, ECHOD_LOG__LEVEL="x", ECHOD_HOST="[", **dict.fromkeys(unknown, "1"))
        assert [re.split("[,;]", problem)[0] for problem in found] == [
            f"{file}: unknown key 'prot'",
            f"{broken}:1:1: Invalid statement",
            *(f"{name}: unknown variable" for name in sorted(unknown)),
            "ECHOD_HOST is '['",
            "--port is 'x'",
            f"{file}: workers is 0",
            f"{file}: limits.keepalive is 'x'",
            "ECHOD_LOG__LEVEL is 'x'",
        ]


class TestHostVariable:
    @pytest.mark.parametrize(
        ("text", "hosts"),
        [
            ("::1", ("::1",)),
            ("::1, 127.0.0.1", ("::1", "127.0.0.1")),
            ("::1,", ("::1",)),
            (",127.0.0.1", ("127.0.0.1",)),
            ('["::1", "unix:/a,b"]', ("::1", "unix:/a,b")),
            ("[::1]", ("::1",)),
            ("127.0.0.1, [fe80::1%eth0]", ("127.0.0.1", "fe80::1%eth0")),
            ("*", ("",)),
            (' [""]', ("",)),
        ],
    )
    def test_several(self, text: str, hosts: tuple[str, ...]) -> None:
        """Hosts are separated by commas, or a list as in the file; empty items are ignored."""
        loaded = read(ECHOD_HOST=text)
        assert loaded.settings.host == hosts

    @pytest.mark.parametrize("text", ["", " "])
    def test_empty(self, text: str) -> None:
        """An empty variable means every address, with a warning, since it may be a mistake."""
        loaded = read(ECHOD_HOST=text)
        assert loaded.settings.host == ("",)
        assert loaded.warnings == [
            "ECHOD_HOST is empty, so echod listens on every address of this machine; unset it for localhost"
        ]

    def test_that_a_flag_sets_it_is_no_warning(self) -> None:
        """`--host ''` means every address without a warning, and so does the file."""
        assert read(None, {"host": [""]}).warnings == []


class TestForeignVariable:
    def test_of_a_service(self) -> None:
        """One warning names all variables that Kubernetes sets for services whose names begin with echod."""
        environ = {
            "ECHOD_PORT": "tcp://10.0.0.1:7",
            "ECHOD_SERVICE_HOST": "10.0.0.1",
            "ECHOD_SERVICE_PORT": "7",
            "ECHOD_SERVICE_PORT_ECHO": "7",
            "ECHOD_PORT_7_TCP": "tcp://10.0.0.1:7",
            "ECHOD_PORT_7_TCP_PROTO": "tcp",
            "ECHOD_LB_SERVICE_HOST": "10.0.0.2",
            "ECHOD_LB_PORT": "tcp://10.0.0.2:7",
            "ECHOD_2_PORT": "udp://10.0.0.3:7",
            "ECHOD_2_PORT_7_UDP_ADDR": "10.0.0.3",
        }
        loaded = read(ECHOD_WORKERS="2", **environ)
        assert (loaded.settings.port, loaded.settings.workers) == (10000, 2)
        assert loaded.warnings == [
            ", ".join(sorted(environ))
            + ": ignored; Kubernetes sets such variables for a service whose name begins with echod"
        ]
        assert set(loaded.origins) == {("workers",)}

    def test_of_an_image(self) -> None:
        """A variable that is similar to no setting is not meant for echod: a warning names it."""
        loaded = read(ECHOD_VERSION="1.0", ECHOD_HOME="/opt/echod")
        assert loaded.warnings == ["ECHOD_HOME, ECHOD_VERSION: ignored; not similar to any setting of echod"]

    def test_a_port_is_a_port(self) -> None:
        """ECHOD_PORT with a number is the setting, without any warning."""
        loaded = read(ECHOD_PORT="7")
        assert (loaded.settings.port, loaded.warnings) == (7, [])


@pytest.mark.parametrize(
    ("word", "expected"),
    [("prot", "; did you mean 'port'?"), ("HOST", "; did you mean 'host'?"), ("xyzzy", ""), ("", "")],
)
def test_nearest(word: str, expected: str) -> None:
    """The most similar word is suggested, if one is similar enough."""
    assert nearest(word, ["port", "host"]) == expected


class TestAgain:
    """Reading a configuration again."""

    def test_files_are_read_again(self, file: Path) -> None:
        """The files that exist now count."""
        file.write_text("port = 1")
        assert load(str(file), {}, {}).settings.port == 1
        beside = Path(f"{file}.d") / "more.toml"
        beside.parent.mkdir()
        beside.write_text("port = 2")
        assert load(str(file), {}, {}, again=True).settings.port == 2

    def test_a_pipe_can_be_read_once(self) -> None:
        """A pipe is refused, since it is empty after the first time."""
        reads, writes = os.pipe()
        os.write(writes, b"port = 1")
        os.close(writes)
        assert load(f"/dev/fd/{reads}", {}, {}).settings.port == 1
        with pytest.raises(ConfigError, match=f"/dev/fd/{reads}: cannot be read again: it is not a regular file; "):
            load(f"/dev/fd/{reads}", {}, {}, again=True)
        os.close(reads)

    def test_nobody_waits_for_a_pipe(self, file: Path) -> None:
        """A named pipe without a writer is refused, since opening it would block for ever."""
        os.mkfifo(file)
        with pytest.raises(ConfigError, match="not a regular file"):
            load(str(file), {}, {}, again=True)

    def test_what_may_not_be_looked_at_any_more(self, open_directory: Path) -> None:
        """A file whose directory may not be entered any more is reported."""
        file = open_directory / "echod.toml"
        file.touch()
        open_directory.chmod(0o700)
        with unprivileged(), pytest.raises(ConfigError, match=f"{file}: cannot be read: Permission denied; "):
            load(str(file), {}, {}, again=True)

    def test_nothing_is_something_that_can_be_read(self) -> None:
        """/dev/null, which stands for no file, can be read again."""
        assert load(os.devnull, {}, {}, again=True).settings == Settings()
