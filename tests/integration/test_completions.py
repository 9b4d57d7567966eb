"""What bash and zsh complete by packaging/completions: real shells on a terminal, which type nothing by themselves."""

import os
import pty
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from echod.client.cli import make_parser

COMPLETIONS = Path(__file__).parents[2] / "packaging" / "completions"
TIMEOUT = 30.0  # seconds; a bug may hang, a busy machine is slow

# Key by key: ^X c has all that is possible put into the line, and ^X l has the line told, and emptied.
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
zstyle ':completion:*' hosts sample.test
insert_all() { _main_complete; compstate[insert]=all compstate[list]=; }
zle -C insert-all complete-word insert_all
bindkey '^Xc' insert-all
tell() { print -r -- $BUFFER >../told; BUFFER= }
zle -N tell
bindkey '^Xl' tell
"""


class Shell:
    """A shell with a few files in its working directory, and one host that it knows: sample.test."""

    def __init__(self, argv: list[str], home: Path) -> None:
        self._home = home
        os.mkfifo(home / "told")
        (home / "here").mkdir()
        for name in ("message.txt", "settings.toml"):
            (home / "here" / name).touch()
        (home / "hosts").write_text("192.0.2.1 sample.test\n")
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
        before = line.rpartition(" ")[0] + " "
        os.write(self._terminal, line.encode() + COMPLETE + TELL)
        after = self._line()
        assert after.startswith(before), (after, self._shown)
        return set(after.removeprefix(before).split())

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
    """Verbs first, options, the words that one may be, files and hosts; nothing for numbers and what is anyone's."""
    # zsh says by "=" that a value follows.
    assert {word.rstrip("=") for word in shell.completed(line)} == words


@pytest.mark.parametrize("verb", ["send", "ping", "load", "check"])
def test_every_option_of_a_verb(shell: Shell, verb: str) -> None:
    """After two hyphens all that --help shows, and no other verb's."""
    known = {name for action in make_parser(verb)._actions for name in action.option_strings if name.startswith("--")}
    assert {word.rstrip("=") for word in shell.completed(f"echoc {verb} --")} == known
