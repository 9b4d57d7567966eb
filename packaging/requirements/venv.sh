#!/bin/sh
# venv.sh DIRECTORY [SET...]: make DIRECTORY a virtual environment with echod and the pinned SETs (SET.txt here).
#
# From the environment: PYTHON, the interpreter to use (default: the first suitable one on PATH), and ECHOD, what pip
# installs as echod (default: this checkout, editable).
#
# The script compares contents, not times: DIRECTORY/pins.stamp lists what was installed. An environment has no stamp
# while it is being changed, so an interrupted one is made again, as is one that no longer matches.
# pip downloads only what the pins name, and checks the hashes; pip's own configuration says where from.
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

# Sets `python`. A command on PATH is not enough: pyenv has commands there for versions that are not selected.
find_python() {
    new_enough=
    if [ "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3 python3.14 python3.13 python3.12 python3.11; fi
    for python; do
        is_new_enough "$python" || continue
        new_enough=${new_enough:-$python}
        makes_venvs "$python" || continue
        # If $venv is activated, python3 is the interpreter that is about to be removed.
        python=$("$python" -c 'import sys; print(sys._base_executable)')
        return
    done
    if [ "$new_enough" ]; then
        fail "$new_enough cannot make virtual environments (on Debian: apt install python3-venv)"
    elif [ "${PYTHON-}" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    fi
    fail "found no Python 3.11 or newer on PATH; install one, or name it: make PYTHON=/path/to/python3"
}

identity() {
    "$1" -c 'import sys; print("python", sys.base_prefix, *sys.version_info)' 2>/dev/null
}

# What the stamp must contain for any sets. The directories, because the scripts in an environment name its directory.
base() {
    echo "echod ${ECHOD:-.} in $venv of $root"
    identity "$venv/bin/python" || echo "no python"
    sha256sum "$pins/venv.sh" "$pins/build.txt" pyproject.toml
}

has() {
    [ -f "$stamp" ] && grep -Fxq -e "$1" "$stamp"
}

# The environment can be kept: its base and its Python are the right ones, and it has no set with other pins.
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

# Without isolation: hatchling and setuptools, which build, are those of build.txt. With it pip downloads the newest.
pip_install() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install \
        --no-build-isolation --use-pep517 "$@"
}

# Each step says itself that it failed: in a function that is called as `make_base || fail`, `set -e` has no effect, and
# the steps after a failed download would run as well.
make_base() {
    "$python" -m venv "$venv" || fail "$python could not make $venv"
    pip_install --require-hashes -r "$pins/build.txt" ||
        fail "pip could not install the packages of $pins/build.txt; its message above says why"
    if [ "${ECHOD-}" ]; then set -- "$ECHOD"; else set -- --editable .; fi
    pip_install --no-deps "$@" || fail "pip could not install echod itself; its message above says why"
}

[ $# -gt 0 ] || fail "usage: venv.sh DIRECTORY [SET...]"
venv=$1
shift
cd "$(dirname "$0")/../.."
root=$(pwd)
pins=packaging/requirements
stamp=$venv/pins.stamp

# Two runs at once, as from `make run` and `make test` in two terminals, take turns. This file is the lock.
exec 9<"$pins/venv.sh"
flock -n 9 || { echo "echod: waiting for another make"; flock 9; }

if ! is_sound "$@"; then
    find_python
    echo "echod: making $venv with $("$python" --version)"
    rm -rf "$venv"
    make_base
    base >"$stamp.new"
    mv "$stamp.new" "$stamp"
fi

for set; do
    line=$(sha256sum "$pins/$set.txt")
    ! has "$line" || continue
    echo "echod: installing the pinned packages of $set (this can take a minute)"
    mv "$stamp" "$stamp.new"
    if pip_install --require-hashes -r "$pins/$set.txt"; then
        echo "$line" >>"$stamp.new"
        mv "$stamp.new" "$stamp"
    else
        mv "$stamp.new" "$stamp"  # pip downloads everything before it changes anything: the environment is as before
        fail "pip could not install the packages of $pins/$set.txt; its message above says why"
    fi
done
