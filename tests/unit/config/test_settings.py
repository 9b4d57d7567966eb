"""config: one model, and everything that is derived from it says the same."""

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

from echod.config.settings import Key, LimitSettings, LogSettings, Settings, as_toml, keys, worker_count
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
    idle_timeout=st.one_of(micro, st.just(math.inf)),
    stall_timeout=st.one_of(micro, st.floats(0.001, 604800)),
    drain_timeout=st.one_of(st.integers(0, 3600), st.floats(0, 3600)),
    keepalive=st.one_of(st.integers(1, 32767), st.floats(1, 32767), st.just(0)),
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
    chunk_size=st.integers(1, 16 << 20),
    workers=st.one_of(st.integers(1, 256), st.just("auto")),
    limits=limits,
    log=log,
)


def test_what_is_not_in_the_model_is_refused() -> None:
    """In no table, and nothing can be changed afterwards."""
    for table in ({"speed": 1}, {"limits": {"speed": 1}}, {"log": {"speed": 1}}):
        with pytest.raises(ValidationError, match="speed"):
            Settings(**table)
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 7


def test_the_model_alone_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where values come from is the business of `echod.sources`, which can say so."""
    monkeypatch.setenv("ECHOD_PORT", "7")
    assert Settings().port == 10000


class TestKeys:
    def test_all_are_there(self) -> None:
        """Every field of the model and of its tables, tables last."""
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
        """One key by all its names."""
        assert (KEYS[name].variable, KEYS[name].flag) == (variable, flag)

    def test_no_two_have_the_same_name(self) -> None:
        """Neither among the variables nor among the flags."""
        for names in ([key.variable for key in KEYS.values()], [key.flag for key in KEYS.values()]):
            assert len(set(names)) == len(KEYS)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_it_explains_itself(self, key: Key) -> None:
        """A sentence, a default, and that is what the model is set to when nobody says anything."""
        assert re.fullmatch(r"[A-Za-z].*\.", key.description)
        assert key.value(Settings()) == key.default


class TestPrinting:
    @given(settings, st.dictionaries(st.sampled_from([key.path for key in KEYS.values()]), st.text()))
    def test_what_is_printed_is_read_again(self, chosen: Settings, origins: dict[tuple[str, ...], str]) -> None:
        """The same settings come out, whatever they are and wherever they came from."""
        printed = as_toml(chosen, origins)
        assert Settings(**tomllib.loads(printed)) == chosen

    def test_through_a_file(self, tmp_path: Path) -> None:
        """What `--print-config` prints can be fed back by `--config`."""
        chosen = Settings(host=("", "unix:/run/é"), limits=LimitSettings(idle_timeout=0))
        file = tmp_path / "printed.toml"
        file.write_text(as_toml(chosen, {}))
        assert load(str(file), {}, {}).settings == chosen

    def test_every_value_tells_where_it_came_from(self) -> None:
        """Behind it, as a comment; nobody said anything about most of them."""
        printed = as_toml(Settings(port=7), {("port",): "flag --port", ("log", "level"): "file /etc/echod.toml"})
        assert "port = 7  # flag --port\n" in printed
        assert 'level = "info"  # file /etc/echod.toml\n' in printed
        assert printed.count("  # default\n") == len(KEYS) - 2


class TestDefaultFile:
    def uncommented(self) -> str:
        """The file with every key in force, as somebody would who removes all `#` before one."""
        return re.sub(r"^#(?=\w+ = )", "", ETC.read_text(), flags=re.MULTILINE)

    def test_as_it_is_it_changes_nothing(self) -> None:
        """Every key is commented out."""
        assert Settings(**tomllib.loads(ETC.read_text())) == Settings()

    def test_uncommented_it_changes_nothing_either(self) -> None:
        """Every value is the default."""
        assert Settings(**tomllib.loads(self.uncommented())) == Settings()

    def test_every_key_is_there_with_its_description(self) -> None:
        """In the order of the model, each with its own line above it, and no other."""
        found = re.findall(r"^# (.*)\n#(\w+) = (.*)$", ETC.read_text(), flags=re.MULTILINE)
        expected = [(key.description, key.path[-1], key.kind.show(key.default)) for key in KEYS.values()]
        assert found == expected

    def test_every_key_is_in_its_table(self) -> None:
        """Where the model has it."""
        values = tomllib.loads(self.uncommented())
        for key in KEYS.values():
            place: Any = values
            for name in key.path:
                place = place[name]


class TestWorkerCount:
    def test_a_number_is_that_number(self) -> None:
        """However many processors there are."""
        assert worker_count(Settings(workers=3)) == 3

    def test_auto_is_one_for_each_processor_that_we_may_use(self) -> None:
        """Not for each that there is: a container may have fewer."""
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert worker_count(Settings(workers="auto")) == 1
        finally:
            os.sched_setaffinity(0, before)
        assert worker_count(Settings(workers="auto")) == len(before)
