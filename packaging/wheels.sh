#!/bin/sh
# wheels.sh VENV DIRECTORY MACHINE: fill DIRECTORY with the wheels that echod runs on, as pinned in requirements/, for
# every Python that it supports on this kind of machine (x86_64, aarch64). VENV is the environment whose pip does it.
# wheels.sh --check DIRECTORY: succeed if it has been filled by these pins, and nothing has been lost since.
#
# This is all that an installation needs of a network: where DIRECTORY is right already nothing is downloaded, and no
# environment made. DIRECTORY/complete tells by contents, not times, so it may come from another machine.
#
# One package for 3.11 to 3.14 costs three more copies of the one compiled module, and lives through the distribution's
# upgrade to another Python.
set -eu

versions="3.11 3.12 3.13 3.14"

here=$(dirname "$0")
pins=$here/requirements

pinned() {
    (cd "$here" && sha256sum wheels.sh requirements/runtime.txt requirements/build.txt)
}

is_complete() {
    [ -f "$1/complete" ] && [ "$(pinned)" = "$(cat "$1/pinned" 2>/dev/null)" ] &&
        (cd "$1" && sha256sum --check --status complete)
}

if [ "$1" = --check ]; then
    is_complete "$2"
    exit
fi

venv=$1
directory=$2
machine=$3

pip() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}

! is_complete "$directory" || exit 0

sh "$pins/venv.sh" "$venv"
echo "echod: fetching the wheels for $machine into $directory"
rm -rf "$directory"
mkdir -p "$directory"
for version in $versions; do
    # --no-deps: the pins name everything, and only so does pip take a source archive, which sdnotify is, for another
    # Python than its own.
    pip download --no-deps --no-build-isolation --use-pep517 --require-hashes -r "$pins/runtime.txt" \
        --python-version "$version" --platform "manylinux_2_17_$machine" --dest "$directory" ||
        { echo "echod: pip could not fetch the wheels for Python $version on $machine" >&2; exit 1; }
done
for archive in "$directory"/*.tar.gz; do
    # By the pinned setuptools beside pip; an isolated build would fetch the newest. The archive's hash was checked.
    pip wheel --no-deps --no-index --no-build-isolation --use-pep517 --wheel-dir "$directory" "$archive"
    rm "$archive"
done
pinned >"$directory/pinned"
(cd "$directory" && sha256sum ./*.whl >complete.new && mv complete.new complete)
