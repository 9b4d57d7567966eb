"""Completion for bash, by what bash(1) itself has: compgen, compopt and complete.

The package bash-completion loads the file when the program's name has been typed, and knows more hosts; the file works
without it.
"""

import textwrap
from collections.abc import Iterator

from generate.completions import Command, Program, Value

_HEADER = """\
# bash completion for %PAGE%: written by "make docs" from the parsers.

# $options: those of the verb $1. $takes: what the option $2 takes, as arguments of compgen; none if it takes nothing.
_%NAME%_options()
{
    takes=()
    case $1 in
"""

# In COMP_WORDS "=" is a word of its own, as is ":".
_FUNCTION = """\
    esac
}

_%NAME%()
{
    local current=${COMP_WORDS[COMP_CWORD]} options takes verb= word
    local -i first=1 places=0
%VERB%
    _%NAME%_options "$verb"
    for word in "${COMP_WORDS[@]:first:COMP_CWORD-first}"; do
        case $word in
            =) ;;
            -?*) _%NAME%_options "$verb" "$word" ;;
            *) if ((${#takes[@]})); then takes=(); else places+=1; fi ;;
        esac
    done
    [[ $current != = ]] || current=

    if [[ $current == -* ]]; then
        takes=(-W "$options")
%PLACES%
    fi
    [[ ${takes[0]-} != -f ]] || compopt -o filenames
    mapfile -t COMPREPLY < <(compgen "${takes[@]}" -- "$current")
%MORE%
}

complete -F _%NAME% %NAME%
"""

_VERB = """\
    if ((COMP_CWORD > 1)); then
        case ${COMP_WORDS[1]} in
            %VERBS%) verb=${COMP_WORDS[1]} first=2 ;;
        esac
    fi"""

# The function is bash-completion's: it knows the hosts of ssh too, and adds them.
_MORE = """\
    if [[ ${takes[*]} == "-A hostname" ]] && declare -F _known_hosts_real >/dev/null; then
        _known_hosts_real -- "$current"
    fi"""

# Arguments of which the shell knows nothing, such as a port, are left out.
_PLACE = """\
    elif ((!${#takes[@]} && places == %NUMBER%)); then
        %TAKES%"""

_MORE_VERBS = """
    if ((COMP_CWORD == 1)); then
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "%VERBS%" -- "$current")
    fi"""


def script(program: Program) -> str:
    """The file that bash reads."""
    verbs = program.verbs
    places = [
        _PLACE.replace("%NUMBER%", str(number)).replace("%TAKES%", _takes(place))
        for number, place in enumerate(program.commands[""].places)
        if place.kind != "other"
    ]
    filled = {
        "%NAME%": program.name,
        "%PAGE%": program.page,
        "%VERB%": _VERB.replace("%VERBS%", " | ".join(verbs)) if verbs else "",
        "%PLACES%": "\n".join(places),
        "%MORE%": _MORE + (_MORE_VERBS.replace("%VERBS%", " ".join(verbs)) if verbs else ""),
    }
    text = _HEADER + "".join(f"{line}\n" for line in _cases(program)) + _FUNCTION
    for name, value in filled.items():
        text = text.replace(f"{name}\n", f"{value}\n" if value else "").replace(name, value)
    return text


def _cases(program: Program) -> Iterator[str]:
    for command, verbs in program.alike():
        patterns = " | ".join(verb or "''" for verb in verbs)
        yield f"        {patterns})"
        yield from textwrap.indent("\n".join(_command(command)), " " * 12).split("\n")
        yield "            ;;"


def _command(command: Command) -> Iterator[str]:
    names = " ".join(name for option in command.options for name in option.names)
    yield f'options="{_wrapped(names)}"'
    yield "case $2 in"
    grouped: dict[str, list[str]] = {}
    for option in command.options:
        if option.values:
            grouped.setdefault(_takes(option.values[0]), []).extend(option.names)
    for takes, patterns in grouped.items():
        yield textwrap.indent(f"{_wrapped(' | '.join(patterns))}) {takes} ;;", " " * 4)
    yield "esac"


def _wrapped(words: str) -> str:
    return " \\\n    ".join(textwrap.wrap(words, 90, break_long_words=False, break_on_hyphens=False))


def _takes(value: Value) -> str:
    if value.kind == "file":
        return "takes=(-f)"
    if value.kind == "host":
        return "takes=(-A hostname)"
    return f'takes=(-W "{" ".join(value.words)}")'
