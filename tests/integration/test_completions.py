"""packaging/completions in real shells on a terminal: what they complete is what the parsers take."""

import argparse
import os
import pty
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest

from echod import cli
from echod.client.cli import VERBS, make_parser
from echod.config.settings import Settings, keys

COMPLETIONS = Path(__file__).parents[2] / "packaging" / "completions"
TIMEOUT = 30.0  # seconds; a bug may hang, a busy machine is slow

# Key by key: ^X c inserts all possible completions into the line, and ^X l writes the line to a pipe and empties it.
COMPLETE = b"\x18c"
TELL = b"\x18l"

BASH = r"""
PS1='$ '
bind '"\C-xc": insert-completions'
tell() { printf '%s\n' "$READLINE_LINE" >../told; READLINE_LINE=; }
bind -x '"\C-xl": tell'
"""
ZSH = r"""
PS1='$ '
fpath=(COMPLETIONS/zsh $fpath)
autoload -Uz compinit
compinit -u -D
zstyle ':completion:*' hosts sample.test ff02::1 ip6-allnodes sample.test
insert_all() { _main_complete; compstate[insert]=all compstate[list]=; }
zle -C insert-all complete-word insert_all
bindkey '^Xc' insert-all
tell() { print -r -- $BUFFER >../told; BUFFER= }
zle -N tell
bindkey '^Xl' tell
"""

HOSTS = """\
192.0.2.1    sample.test  # a comment
2001:db8::1  sample.test

# 192.0.2.2  disabled.test
ff02::1      ip6-allnodes
224.0.0.1    all-systems.test
"""
HOST = "sample.test"
FILES = ("message.txt", "settings.toml")


class Shell:
    """A shell in a directory with a few files; its hosts file names one host twice, and multicast addresses."""

    def __init__(self, argv: list[str], home: Path) -> None:
        self._home = home
        os.mkfifo(home / "told")
        (home / "here").mkdir()
        for name in FILES:
            (home / "here" / name).touch()
        (home / "hosts").write_text(HOSTS)
        self._told = os.open(home / "told", os.O_RDWR)
        self._terminal, theirs = pty.openpty()
        environment = {
            "HOME": str(home),
            "HOSTFILE": str(home / "hosts"),
            "ZDOTDIR": str(home),
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
        }
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home / "here", env=environment, start_new_session=True
        )
        os.close(theirs)
        self._shown = b""

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)
        os.close(self._told)

    def completed(self, line: str) -> set[str]:
        """The words that the shell puts in place of the line's last one, which itself stays if there is none."""
        return set(self.completed_words(line))

    def completed_words(self, line: str) -> list[str]:
        """The same in the shell's order, each as often as it is offered."""
        before = line.rpartition(" ")[0] + " "
        os.write(self._terminal, line.encode() + COMPLETE + TELL)
        after = self._line()
        assert after.startswith(before), (after, self._shown)
        return after.removeprefix(before).split()

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._told, self._terminal], [], [], TIMEOUT)
            assert ready, self._shown
            if self._terminal in ready:
                self._shown += os.read(self._terminal, 4096)
            if self._told in ready:
                line += os.read(self._told, 4096)
        return line.decode().rstrip("\n")


@pytest.fixture(scope="module", params=["bash", "bash with bash-completion", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Each of the shells; one for all tests."""
    name = request.param.partition(" ")[0]
    if not shutil.which(name):
        pytest.skip(f"there is no {name}")
    home = tmp_path_factory.mktemp(name)
    if name == "zsh":
        (home / ".zshrc").write_text(ZSH.replace("COMPLETIONS", str(COMPLETIONS)))
        argv = ["zsh", "-d", "-i"]
    else:
        rules = BASH
        if "with" in request.param:
            package = Path("/usr/share/bash-completion/bash_completion")
            if not package.exists():
                pytest.skip("there is no bash-completion")
            rules += f"source {package}\n"
        rules += "".join(f"source {path}\n" for path in sorted((COMPLETIONS / "bash").iterdir()))
        (home / "rules").write_text(rules)
        argv = ["bash", "--noprofile", "--rcfile", str(home / "rules"), "-i"]
    with ExitStack() as stack:
        shell = Shell(argv, home)
        stack.callback(shell.close)
        yield shell


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echoc p", {"ping"}),
        ("echoc s", {"send", "sample.test"}),
        ("echoc ping s", {"sample.test"}),
        ("echoc send sample.test s", {"s"}),
        ("echoc ping sample.test s", {"s"}),
        ("echoc --timeout s", {"s"}),
        ("echoc --timeout 5 sample.test s", {"s"}),
        ("echoc -m text sam", {"sample.test"}),
        ("echoc --no-h", {"--no-half-close"}),
        ("echoc send --con", {"--connect-timeout"}),
        ("echoc ping --mes", {"--mes"}),
        ("echoc check --warn", {"--warning"}),
        ("echoc check sample.test --crit", {"--critical"}),
        ("echoc check -H sam", {"sample.test"}),
        ("echoc load --mode st", {"stream"}),
        ("echoc -f mes", {"message.txt"}),
        ("echoc send --file mes", {"message.txt"}),
        ("echoc --file=mes", {"--file=message.txt"}),
        ("echod --config set", {"settings.toml"}),
        ("echod --log-l", {"--log-level"}),
        ("echod --log-level ", {"debug", "info", "warning", "error"}),
        ("echod --log-format=j", {"--log-format=json"}),
        ("echod --log-connections f", {"false"}),
        ("echod --workers a", {"auto"}),
        ("echod --port 7 --host sam", {"sample.test"}),
        ("echod s", {"s"}),
    ],
)
def test_what_is_completed(shell: Shell, line: str, words: set[str]) -> None:
    """Verbs first, options, allowed words, files and hosts; nothing for numbers and free text."""
    assert offered(shell, line) == words


def offered(shell: Shell, line: str) -> set[str]:
    """The completions of a line, without the "=" by which zsh shows that a value follows."""
    return {word.rstrip("=") for word in shell.completed(line)}


PARSERS: dict[str, argparse.ArgumentParser] = {
    "echod": cli.make_parser(),
    "echoc": make_parser(),
    **{f"echoc {verb}": make_parser(verb) for verb in VERBS},
}
commands = pytest.mark.parametrize("command", PARSERS)


def test_every_verb_and_every_host(shell: Shell) -> None:
    """The first word of echoc is a verb or a host: each is offered, the host once, and no multicast address."""
    words = shell.completed_words("echoc ")
    assert sorted(words) == sorted([*VERBS, HOST])


@commands
def test_every_option(shell: Shell, command: str) -> None:
    """After one hyphen a shell offers the options of that parser, short and long, and no others."""
    known = {name for action in PARSERS[command]._actions for name in action.option_strings}
    assert offered(shell, f"{command} -") == known


@commands
def test_every_value(shell: Shell, command: str) -> None:
    """After an option that takes a value a shell offers its choices, files or hosts, and otherwise nothing."""
    for action in PARSERS[command]._actions:
        if action.nargs != 0:
            for name in action.option_strings:
                assert sorted(shell.completed_words(f"{command} {name} ")) == sorted(allowed(action, name)), name


@commands
def test_an_option_without_a_value(shell: Shell, command: str) -> None:
    """After a flag comes the first argument: a host for echoc, no word for echod, and no verb."""
    expected = [] if command == "echod" else [HOST]
    for action in PARSERS[command]._actions:
        if action.nargs == 0 and not isinstance(action, argparse._HelpAction | argparse._VersionAction):
            for name in action.option_strings:
                # zsh offers options where nothing else can follow.
                found = [word for word in shell.completed_words(f"{command} {name} ") if not word.startswith("-")]
                assert found == expected, name


def allowed(action: argparse.Action, flag: str) -> tuple[str, ...]:
    """What a shell can know of an option's value: its choices or words, or the names of files or hosts."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if action.metavar == "FILE":
        return FILES
    if action.metavar == "HOST":
        return (HOST,)
    for key in keys():
        if key.flag == flag:
            return tuple(words(key.path))
    return ()


def words(path: tuple[str, ...]) -> Iterator[str]:
    """The words that a setting may be: all its values, or those beside numbers."""
    found: Any = Settings
    for name in path:
        found = found.model_fields[name].annotation
    pending = [found]
    while pending:
        annotation = pending.pop()
        if annotation is bool:
            yield from ("true", "false")
        elif isinstance(annotation, str):
            yield annotation
        else:
            pending += get_args(annotation)


@pytest.mark.parametrize("path", sorted(COMPLETIONS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_description_is_one_line(path: Path) -> None:
    """No quoted text continues on the next line, where a shell would show the line break."""
    multiline = 'words="\n'  # a list in bash, in which line breaks are spaces
    text = re.sub(rf"{multiline}[^\"]*\"", "", path.read_text())
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            assert line.count('"') % 2 == 0, line
            assert line.replace("'\\''", "").count("'") % 2 == 0, line
