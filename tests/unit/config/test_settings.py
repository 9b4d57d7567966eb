"""config.settings: one model, and everything that is derived from it agrees."""

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from echod.config.settings import (
    Key,
    LimitSettings,
    LogSettings,
    Settings,
    as_toml,
    kernel_memory,
    keys,
    worker_count,
)
from echod.config.sources import load
from echod.log.events import LEVELS

ETC = Path(__file__).parents[3] / "etc" / "echod.toml"
KEYS = {key.name: key for key in keys()}

micro = st.integers(1000, 604_800_000_000).map(lambda microseconds: microseconds / 1e6)
hosts = st.text(st.characters(exclude_categories=["Cs"]))
limits = st.builds(
    LimitSettings,
    max_connections=st.integers(1, 1_000_000),
    max_connections_per_source=st.integers(0, 1_000_000),
    ipv6_source_prefix=st.integers(1, 128),
    kernel_memory=st.one_of(st.integers(1 << 20, 1 << 40), st.just(0), st.just("auto")),
    idle_timeout=st.one_of(micro, st.just(math.inf)),
    stall_timeout=st.one_of(micro, st.floats(0.001, 604800)),
    drain_timeout=st.one_of(st.integers(0, 3600), st.floats(0, 3600)),
    keepalive=st.one_of(st.integers(1, 32767), st.floats(1, 32767), st.just(0)),
    keepalive_interval=st.one_of(st.integers(1, 32767), st.floats(1, 32767)),
    keepalive_probes=st.integers(1, 127),
)
log = st.builds(
    LogSettings,
    level=st.sampled_from(sorted(LEVELS)),
    format=st.sampled_from(["json", "console"]),
    connections=st.booleans(),
    payload=st.booleans(),
)
settings = st.builds(
    Settings,
    host=st.one_of(hosts, st.lists(hosts, min_size=1, max_size=4)),
    port=st.integers(0, 65535),
    unix_mode=st.integers(0, 0o777).map("{:04o}".format),
    chunk_size=st.integers(1, 16 << 20),
    workers=st.one_of(st.integers(1, 256), st.just("auto")),
    limits=limits,
    log=log,
)


def test_an_unknown_key_is_refused() -> None:
    """No table takes a key that is not in the model, and settings are immutable."""
    for table in ({"speed": 1}, {"limits": {"speed": 1}}, {"log": {"speed": 1}}):
        with pytest.raises(ValidationError, match="speed"):
            Settings(**table)
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 7


def test_the_model_alone_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are read by `echod.config.sources` alone, which knows the origin of each value."""
    monkeypatch.setenv("ECHOD_PORT", "7")
    assert Settings().port == 10000


class TestKeys:
    def test_all_are_there(self) -> None:
        """Every field of the model and of its tables is a key; those of tables come last."""
        expected = [name for name in Settings.model_fields if name not in ("limits", "log")]
        expected += [f"limits.{name}" for name in LimitSettings.model_fields]
        expected += [f"log.{name}" for name in LogSettings.model_fields]
        assert list(KEYS) == expected

    @pytest.mark.parametrize(
        ("name", "variable", "flag"),
        [
            ("host", "ECHOD_HOST", "--host"),
            ("chunk_size", "ECHOD_CHUNK_SIZE", "--chunk-size"),
            ("log.level", "ECHOD_LOG__LEVEL", "--log-level"),
            (
                "limits.max_connections_per_source",
                "ECHOD_LIMITS__MAX_CONNECTIONS_PER_SOURCE",
                "--limits-max-connections-per-source",
            ),
        ],
    )
    def test_its_names(self, name: str, variable: str, flag: str) -> None:
        """The names of a key in file, environment and command line derive from each other."""
        assert (KEYS[name].variable, KEYS[name].flag) == (variable, flag)

    def test_no_two_have_the_same_name(self) -> None:
        """Variables and flags are unique."""
        for names in ([key.variable for key in KEYS.values()], [key.flag for key in KEYS.values()]):
            assert len(set(names)) == len(KEYS)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_it_explains_itself(self, key: Key) -> None:
        """Each key has a sentence that describes it, and its default is the value in the model."""
        assert re.fullmatch(r"[A-Za-z].*\.", key.description)
        assert key.value(Settings()) == key.default


class TestPrinting:
    @given(settings, st.dictionaries(st.sampled_from([key.path for key in KEYS.values()]), st.text()))
    def test_what_is_printed_is_read_again(self, chosen: Settings, origins: dict[tuple[str, ...], str]) -> None:
        """`as_toml` and `load` give the same settings again, for any values and origins."""
        printed = as_toml(chosen, origins)
        assert Settings(**tomllib.loads(printed)) == chosen

    def test_through_a_file(self, tmp_path: Path) -> None:
        """The output of `--print-config` is valid input for `--config`."""
        chosen = Settings(host=("", "unix:/run/é"), limits=LimitSettings(idle_timeout=0))
        file = tmp_path / "printed.toml"
        file.write_text(as_toml(chosen, {}))
        assert load(str(file), {}, {}).settings == chosen

    def test_every_value_has_its_origin(self) -> None:
        """A comment behind each value names its origin, or says that it is the default."""
        printed = as_toml(Settings(port=7), {("port",): "flag --port", ("log", "level"): "file /etc/echod.toml"})
        assert "port = 7  # flag --port\n" in printed
        assert 'level = "info"  # file /etc/echod.toml\n' in printed
        assert printed.count("  # default\n") == len(KEYS) - 2


class TestDefaultFile:
    def uncommented(self) -> str:
        """The file with the `#` before every key removed."""
        return re.sub(r"^#(?=\w+ = )", "", ETC.read_text(), flags=re.MULTILINE)

    def test_as_it_is_it_changes_nothing(self) -> None:
        """Every key is commented out, so the file changes nothing."""
        assert Settings(**tomllib.loads(ETC.read_text())) == Settings()

    def test_uncommented_it_changes_nothing_either(self) -> None:
        """Every value in the file is the default."""
        assert Settings(**tomllib.loads(self.uncommented())) == Settings()

    def test_every_key_is_there_with_its_description(self) -> None:
        """The keys are in the order of the model, each below its description, and there are no others."""
        found = re.findall(r"^# (.*)\n#(\w+) = (.*)$", ETC.read_text(), flags=re.MULTILINE)
        expected = [(key.description, key.path[-1], key.kind.show(key.default)) for key in KEYS.values()]
        assert found == expected

    def test_every_key_is_in_its_table(self) -> None:
        """The tables of the file are those of the model."""
        values = tomllib.loads(self.uncommented())
        for key in KEYS.values():
            place: Any = values
            for name in key.path:
                place = place[name]


class TestWorkerCount:
    def test_a_number_is_that_number(self) -> None:
        """A number is taken as it is, for any number of processors."""
        assert worker_count(Settings(workers=3)) == 3

    def test_auto_is_one_for_each_processor_that_we_may_use(self) -> None:
        """`auto` counts the processors that this process may use: a container may have fewer than the machine."""
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert worker_count(Settings(workers="auto")) == 1
        finally:
            os.sched_setaffinity(0, before)
        assert worker_count(Settings(workers="auto")) == len(before)


def test_kernel_memory() -> None:
    """A size is taken as it is, and `auto` is a third of what the kernel allows all TCP sockets by default."""
    assert kernel_memory(Settings(limits=LimitSettings(kernel_memory=1 << 20))) == 1 << 20
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert kernel_memory(Settings()) == total // 32
