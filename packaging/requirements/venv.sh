#!/bin/sh
# venv.sh DIRECTORY [SET...]: make DIRECTORY a virtual environment with echod and the pinned SETs (SET.txt here).
#
# From the environment: PYTHON, the interpreter to use (otherwise the first one that will do), and ECHOD, what pip
# installs as echod (otherwise this checkout, editable).
#
# It compares contents, not times: DIRECTORY/pins.stamp says in lines what was installed. While the environment is
# being changed it has no stamp, so one whose making was interrupted is made anew, as is one that no longer fits.
# Nothing is downloaded but what the pins name, and only if its hash is theirs; from where is pip's configuration.
set -eu

fail() {
    echo "echod: $*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

makes_venvs() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Sets `python`. To be on PATH is not enough: pyenv has commands there for versions that are not chosen.
find_python() {
    new_enough=
    if [ "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3 python3.14 python3.13 python3.12 python3.11; fi
    for python; do
        is_new_enough "$python" || continue
        new_enough=${new_enough:-$python}
        makes_venvs "$python" || continue
        # Where $venv is activated, python3 is the very one that is about to be removed.
        python=$("$python" -c 'import sys; print(sys._base_executable)')
        return
    done
    if [ "$new_enough" ]; then
        fail "$new_enough cannot make virtual environments (on Debian: apt install python3-venv)"
    elif [ "${PYTHON-}" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    fi
    fail "there is no Python 3.11 or newer on PATH; install one, or say where it is: make PYTHON=/path/to/python3"
}

identity() {
    "$1" -c 'import sys; print("python", sys.base_prefix, *sys.version_info)' 2>/dev/null
}

# What the stamp must say, whatever the sets. The directories, because an environment's scripts name their own.
base() {
    echo "echod ${ECHOD:-.} in $venv of $root"
    identity "$venv/bin/python" || echo "no python"
    sha256sum "$pins/venv.sh" "$pins/build.txt" pyproject.toml
}

has() {
    [ -f "$stamp" ] && grep -Fxq -e "$1" "$stamp"
}

# Nothing has to be removed: the base is there, by the Python that was asked for, and no set with other pins.
is_sound() {
    while IFS= read -r line; do
        has "$line" || return 1
    done <<END
$(base)
END
    [ -z "${PYTHON-}" ] || has "$(identity "$PYTHON")" || return 1
    for set; do
        has "$(sha256sum "$pins/$set.txt")" || ! grep -q " $pins/$set.txt\$" "$stamp" || return 1
    done
}

# Without isolation the sdnotify archive is built by the pinned setuptools; otherwise pip would fetch the newest.
pip_install() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install \
        --no-build-isolation --use-pep517 "$@"
}

make_base() {
    pip_install --require-hashes -r "$pins/build.txt"
    if [ "${ECHOD-}" ]; then
        pip_install --no-deps "$ECHOD"
    else
        pip_install --no-deps --editable .
    fi
}

[ $# -gt 0 ] || fail "usage: venv.sh DIRECTORY [SET...]"
venv=$1
shift
cd "$(dirname "$0")/../.."
root=$(pwd)
pins=packaging/requirements
stamp=$venv/pins.stamp

# Two at once, as from `make run` and `make test` in two terminals, take turns. The lock is this file.
exec 9<"$pins/venv.sh"
flock -n 9 || { echo "echod: waiting for another make"; flock 9; }

if ! is_sound "$@"; then
    find_python
    echo "echod: making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python could not make $venv"
    make_base || fail "pip could not install into $venv"
    base >"$stamp.new"
    mv "$stamp.new" "$stamp"
fi

for set; do
    line=$(sha256sum "$pins/$set.txt")
    ! has "$line" || continue
    echo "echod: installing the pinned packages of $set (the first time this takes a while)"
    mv "$stamp" "$stamp.new"
    if pip_install --require-hashes -r "$pins/$set.txt"; then
        echo "$line" >>"$stamp.new"
        mv "$stamp.new" "$stamp"
    else
        mv "$stamp.new" "$stamp"  # pip changes nothing before it has everything: what was there is still good
        fail "pip could not install what $pins/$set.txt names"
    fi
done
