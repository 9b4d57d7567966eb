"""sources: which source wins, where each value came from, and one clear sentence for everything that is wrong."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from echod.config import sources
from echod.config.settings import Settings, keys
from echod.config.sources import Loaded, load, nearest
from echod.errors import ConfigError

KEYS = {key.name: key for key in keys()}
PORT, HOST = KEYS["port"].kind.expected, KEYS["host"].kind.expected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is, or would be."""
    return tmp_path / "echod.toml"


@pytest.fixture(autouse=True)
def no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever this machine has in /etc does not matter; it is elsewhere here."""
    default = tmp_path / "etc" / "default.toml"
    default.parent.mkdir()
    monkeypatch.setattr(sources, "DEFAULT_FILE", str(default))
    return default


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that every user may enter, unlike pytest's own."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """For a moment not to be root, who may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def problems(config: object = None, flags: Mapping[str, Any] | None = None, /, **environ: str) -> list[str]:
    """What is said about a configuration that is wrong."""
    with pytest.raises(ConfigError) as caught:
        read(config, flags, **environ)
    assert caught.value.exit_code == 78
    return list(caught.value.problems)


def read(config: object = None, flags: Mapping[str, Any] | None = None, /, **environ: str) -> Loaded:
    """Load with flags by the names of their keys."""
    named = {KEYS[name].path: value for name, value in (flags or {}).items()}
    return load(None if config is None else str(config), named, environ)


class TestPrecedence:
    def test_flags_over_variables_over_files_over_defaults(self, file: Path) -> None:
        """Each key by itself, and each remembers where it came from."""
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

    def test_nothing_said_is_the_defaults(self) -> None:
        """No file has to be there."""
        loaded = read()
        assert loaded == Loaded(Settings(), {}, [], [])

    def test_every_key_by_its_variable_and_its_flag(self) -> None:
        """As text, which is all that these can say."""
        texts = {
            "host": ("::1", ("::1",)),
            "port": ("7", 7),
            "chunk_size": ("1K", 1024),
            "workers": ("auto", "auto"),
            "handover": ("false", False),
            "limits.max_connections": ("5", 5),
            "limits.max_connections_per_source": ("6", 6),
            "limits.idle_timeout": ("1min 30s", 90.0),
            "limits.stall_timeout": ("1.5", 1.5),
            "limits.drain_timeout": ("100ms", 0.1),
            "limits.keepalive": ("1h", 3600.0),
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
        """And its drop-ins even without it."""
        drop_ins = Path(f"{no_default_file}.d")
        drop_ins.mkdir()
        (drop_ins / "a.toml").write_text("workers = 2")
        assert read().files == [f"{drop_ins}/a.toml"]
        no_default_file.write_text("port = 7")
        assert read().files == [str(no_default_file), f"{drop_ins}/a.toml"]
        assert (read().settings.port, read().settings.workers) == (7, 2)

    def test_a_named_one_instead(self, file: Path, no_default_file: Path) -> None:
        """`--config` over ECHOD_CONFIG over the default; only one of them is read."""
        no_default_file.write_text("port = 1\nworkers = 9")
        by_variable = file.with_name("variable.toml")
        by_variable.write_text("port = 2")
        file.write_text("port = 3")
        assert read(ECHOD_CONFIG=str(by_variable)).settings.port == 2
        loaded = read(file, ECHOD_CONFIG=str(by_variable))
        assert (loaded.settings.port, loaded.settings.workers) == (3, 1)

    def test_a_named_one_must_be_there(self, file: Path) -> None:
        """Whichever way it was named."""
        expected = (
            f"{file}: cannot be read: No such file or directory; name a file that exists and is readable by this user"
        )
        assert problems(file) == problems(ECHOD_CONFIG=str(file)) == [expected]

    def test_it_may_be_a_pipe(self) -> None:
        """As in `--config <(…)`."""
        reads, writes = os.pipe()
        os.write(writes, b"port = 7")
        os.close(writes)
        assert read(f"/dev/fd/{reads}").settings.port == 7
        os.close(reads)

    @pytest.mark.parametrize(("named", "shown"), [("", "."), ("/", "/"), ("..", "..")])
    def test_a_directory(self, named: str, shown: str) -> None:
        """Not even the empty name is a reason for a traceback."""
        assert (
            problems(named)
            == problems(ECHOD_CONFIG=named)
            == [f"{shown}: cannot be read: Is a directory; name a file that exists and is readable by this user"]
        )

    def test_what_is_no_directory_of_drop_ins(self, file: Path) -> None:
        """Is none."""
        file.write_text("port = 7")
        Path(f"{file}.d").write_text("port = 8")
        assert read(file).settings.port == 7

    def test_what_may_not_be_read(self, open_directory: Path) -> None:
        """File and directory, both told."""
        file = open_directory / "echod.toml"
        drop_ins = Path(f"{file}.d")
        file.touch(mode=0)
        drop_ins.mkdir(mode=0)
        with unprivileged():
            assert problems(file) == [
                f"{drop_ins}: cannot be read: Permission denied; make it readable by this user",
                f"{file}: cannot be read: Permission denied; name a file that exists and is readable by this user",
            ]
        drop_ins.chmod(0o700)

    def test_what_may_not_be_looked_for(self, open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default file is taken to be there, since it may be."""
        file = open_directory / "echod.toml"
        monkeypatch.setattr(sources, "DEFAULT_FILE", str(file))
        open_directory.chmod(0o700)
        with unprivileged():
            assert problems() == [
                f"{file}.d: cannot be read: Permission denied; make it readable by this user",
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
    def test_what_is_no_toml(self, file: Path, text: str, sentence: str) -> None:
        """File, line and column, also at its very end, and what is wrong there."""
        file.write_text(text)
        (problem,) = problems(file)
        assert problem.startswith(f"{file}{sentence}")
        assert problem.endswith("; this is not TOML")

    def test_what_is_no_utf_8(self, file: Path) -> None:
        """At which byte."""
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
        ],
    )
    def test_an_unknown_key(self, file: Path, text: str, sentence: str) -> None:
        """With the nearest that is known, if one is near; also those that mean something to pydantic-settings."""
        file.write_text(text)
        assert problems(file) == [f"{file}: {sentence}"]

    @pytest.mark.parametrize(
        "text", ["limits = 5", "limits = [1]", "limits = 'none'", "[[limits]]\nidle_timeout = 7", "limits = true"]
    )
    def test_a_table_that_is_none(self, file: Path, text: str) -> None:
        """With how to write one."""
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
        """With the file, the value, and what would be right."""
        file.write_text(text)
        assert problems(file) == [f"{file}: {sentence}"]

    @pytest.mark.parametrize("name", ["port", "chunk_size", "limits.idle_timeout", "limits.drain_timeout", "log.level"])
    @pytest.mark.parametrize("value", ["{}", "[[{}]]"])
    def test_a_number_that_python_does_not_show(self, file: Path, name: str, value: str) -> None:
        """It has more digits than Python makes of a number, which TOML's hexadecimal ones may have."""
        file.write_text(f"{name} = {value.format('0x' + 5000 * 'f')}")
        expected = KEYS[name].kind.expected
        assert problems(file) == [f"{file}: {name} is a number that is too large, but must be {expected}"]

    def test_one_that_is_too_long(self, file: Path) -> None:
        """It is not read to its end, which may not come."""
        file.write_text("#" * sources.FILE_MAX)
        assert read(file).settings == Settings()
        file.write_text("#" * (sources.FILE_MAX + 1))
        for named in (file, "/dev/zero"):
            assert problems(named) == [f"{named}: is longer than 1048576 bytes; name a configuration file"]

    @pytest.mark.parametrize("begin", ["k", "_"])
    def test_many_problems(self, file: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
        """The first are told, with what may have been meant, and how many more there are; each source by itself."""
        looked: list[str] = []

        def look(word: str, words: object) -> str:
            looked.append(word)
            return ""

        monkeypatch.setattr(sources, "nearest", look)
        file.write_text("".join(f"{begin}{number} = 0\n" for number in range(1000)))
        unknown = [f"{file}: unknown key '{begin}{number}'" for number in range(20)]
        assert sorted(problems(file, {"port": "x"})) == sorted(
            [f"--port is 'x', but must be {PORT}", *unknown, f"{file}: 980 more like these; fix them all"]
        )
        assert len(looked) == 20

    def test_the_drop_in_that_is_wrong_is_named(self, file: Path) -> None:
        """Not the file beside it."""
        file.write_text("port = 7")
        Path(f"{file}.d").mkdir()
        drop_in = Path(f"{file}.d") / "a.toml"
        drop_in.write_text("port = 'x'")
        assert problems(file) == [f"{drop_in}: port is 'x', but must be {PORT}"]

    def test_a_stronger_source_mends_a_weaker_one(self, file: Path) -> None:
        """What is laid over is not looked at, be it a value or a whole table."""
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
            ({"ECHOD_HOST": "[::1]"}, f"ECHOD_HOST is '[::1]', but must be {HOST}"),
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
            ({"ECHOD_XYZZY": "{}"}, "ECHOD_XYZZY: unknown variable"),
        ],
        ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
    )
    def test_one_sentence(self, environ: dict[str, str], sentence: str) -> None:
        """With the variable, the value, and what would be right."""
        (problem,) = problems(**environ)
        assert problem.startswith(sentence)

    def test_a_wrong_flag(self) -> None:
        """It is named as it was written."""
        assert problems(None, {"port": "http"}) == [f"--port is 'http', but must be {PORT}"]

    def test_all_at_once(self, file: Path) -> None:
        """Whatever is wrong is told together, each by its source, always in the same order."""
        file.write_text("prot = 7\nworkers = 0\n[limits]\nkeepalive = 'x'")
        Path(f"{file}.d").mkdir()
        broken = Path(f"{file}.d") / "broken.toml"
        broken.write_text("=")
        unknown = [f"ECHOD_{letter}" for letter in "ZYXW"]
        found = problems(file, {"port": "x"}, ECHOD_LOG__LEVEL="x", ECHOD_HOST="[", **dict.fromkeys(unknown, "1"))
        assert [re.split("[,;]", problem)[0] for problem in found] == [
            f"{broken}:1:1: Invalid statement",
            *(f"{name}: unknown variable" for name in sorted(unknown)),
            "ECHOD_HOST is '['",
            "--port is 'x'",
            f"{file}: workers is 0",
            f"{file}: limits.keepalive is 'x'",
            f"{file}: unknown key 'prot'",
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
            (' [""]', ("",)),
        ],
    )
    def test_several(self, text: str, hosts: tuple[str, ...]) -> None:
        """By commas, or as in the file; a comma too many lets nobody in."""
        loaded = read(ECHOD_HOST=text)
        assert loaded.settings.host == hosts

    @pytest.mark.parametrize("text", ["", " "])
    def test_empty(self, text: str) -> None:
        """It means every address, as the key does; but maybe somebody forgot to fill it in."""
        loaded = read(ECHOD_HOST=text)
        assert loaded.settings.host == ("",)
        assert loaded.warnings == [
            "ECHOD_HOST is empty, so echod listens on every address of this machine; unset it for localhost"
        ]

    def test_that_a_flag_sets_it_is_no_warning(self) -> None:
        """`--host ''` is clear enough, and so is the file."""
        assert read(None, {"host": [""]}).warnings == []


class TestKubernetes:
    def test_what_it_injects_is_ignored(self) -> None:
        """With one warning that names all of them; nothing else that begins so is let through."""
        environ = {
            "ECHOD_PORT": "tcp://10.0.0.1:7",
            "ECHOD_SERVICE_HOST": "10.0.0.1",
            "ECHOD_SERVICE_PORT": "7",
            "ECHOD_SERVICE_PORT_ECHO": "7",
            "ECHOD_PORT_7_TCP": "tcp://10.0.0.1:7",
            "ECHOD_PORT_7_TCP_PROTO": "tcp",
        }
        loaded = read(ECHOD_WORKERS="2", **environ)
        assert (loaded.settings.port, loaded.settings.workers) == (10000, 2)
        assert loaded.warnings == [
            f"{', '.join(sorted(environ))}: ignored: Kubernetes sets these variables for a service named echod"
        ]
        assert set(loaded.origins) == {("workers",)}

    def test_a_port_is_a_port(self) -> None:
        """Where there is no Kubernetes, or the service has another name."""
        loaded = read(ECHOD_PORT="7")
        assert (loaded.settings.port, loaded.warnings) == (7, [])


@pytest.mark.parametrize(("word", "expected"), [("prot", "; did you mean 'port'?"), ("xyzzy", ""), ("", "")])
def test_nearest(word: str, expected: str) -> None:
    """The most similar, if any is."""
    assert nearest(word, ["port", "host"]) == expected


class TestAgain:
    """A configuration that was read before."""

    def test_it_is_read_anew(self, file: Path) -> None:
        """With the files that are there now."""
        file.write_text("port = 1")
        assert load(str(file), {}, {}).settings.port == 1
        beside = Path(f"{file}.d") / "more.toml"
        beside.parent.mkdir()
        beside.write_text("port = 2")
        assert load(str(file), {}, {}, again=True).settings.port == 2

    def test_a_pipe_can_be_read_once(self) -> None:
        """And is refused then, since all that it said would be gone."""
        reads, writes = os.pipe()
        os.write(writes, b"port = 1")
        os.close(writes)
        assert load(f"/dev/fd/{reads}", {}, {}).settings.port == 1
        with pytest.raises(ConfigError, match=f"/dev/fd/{reads}: is not a regular file, so it cannot be read again; "):
            load(f"/dev/fd/{reads}", {}, {}, again=True)
        os.close(reads)

    def test_nobody_waits_for_a_pipe(self, file: Path) -> None:
        """One with a name and nobody who writes to it would hold us up for ever."""
        os.mkfifo(file)
        with pytest.raises(ConfigError, match="not a regular file"):
            load(str(file), {}, {}, again=True)

    def test_what_may_not_be_looked_at_any_more(self, open_directory: Path) -> None:
        """Its directory is closed to us now."""
        file = open_directory / "echod.toml"
        file.touch()
        open_directory.chmod(0o700)
        with unprivileged(), pytest.raises(ConfigError, match=f"{file}: cannot be read: Permission denied; "):
            load(str(file), {}, {}, again=True)

    def test_nothing_is_something_that_can_be_read(self) -> None:
        """/dev/null is the way to say that there is no file."""
        assert load(os.devnull, {}, {}, again=True).settings == Settings()
