#!/bin/sh
# wheels.sh VENV DIRECTORY MACHINE: fill DIRECTORY with the wheels that echod needs, as pinned in requirements/, for
# each supported Python on this kind of machine (x86_64, aarch64). VENV is the environment whose pip is used.
# wheels.sh --check DIRECTORY: succeed if it was filled from these pins, and is still complete.
#
# An installation needs a network for nothing else: if DIRECTORY is complete, nothing is downloaded and no environment
# is made. DIRECTORY/complete compares contents, not times, so the directory may come from another machine.
#
# One package for Python 3.11 to 3.14 costs three more copies of the one compiled module, and keeps working after an
# upgrade of the distribution to another Python.
set -eu

versions="3.11 3.12 3.13 3.14"

here=$(dirname "$0")
pins=$here/requirements

fail() {
    echo "echod: $*" >&2
    exit 1
}

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
echo "echod: downloading the wheels for $machine into $directory"
rm -rf "$directory"
mkdir -p "$directory"
for version in $versions; do
    # --no-deps: the pins name everything. Without it pip takes no source archive, such as that of sdnotify, for another
    # Python than its own.
    pip download --no-deps --no-build-isolation --use-pep517 --require-hashes -r "$pins/runtime.txt" \
        --python-version "$version" --platform "manylinux_2_17_$machine" --dest "$directory" ||
        fail "pip could not download the wheels for Python $version on $machine; its message above says why"
done
for archive in "$directory"/*.tar.gz; do
    # Built by the pinned setuptools; an isolated build would download the newest. The hash of the archive was checked.
    pip wheel --no-deps --no-index --no-build-isolation --use-pep517 --wheel-dir "$directory" "$archive" ||
        fail "pip could not build a wheel of $archive; its message above says why"
    rm "$archive"
done
pinned >"$directory/pinned"
(cd "$directory" && sha256sum ./*.whl >complete.new && mv complete.new complete)
