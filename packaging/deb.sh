#!/bin/sh
# deb.sh WHEELS MACHINE: build the Debian packages echod and echoc into dist/, for x86_64 or aarch64.
#
# In a copy of what goes into them, so that nothing else can, and so that debian/ lies where Debian's tools want it.
set -eu

fail() {
    echo "echod: $*" >&2
    exit 1
}

cd "$(dirname "$0")/.."
case $2 in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) fail "there is no package for $2; say make deb MACHINE=x86_64 or MACHINE=aarch64" ;;
esac
command -v dpkg-buildpackage >/dev/null && command -v dh >/dev/null ||
    fail "make deb takes Debian's build tools: apt install dpkg-dev debhelper"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
source=$scratch/echod
mkdir "$source"
cp -R echod etc packaging README.md LICENSE "$source"
cp -R packaging/debian "$source/debian"
cp -R "$1" "$source/wheels"
find "$source" -name __pycache__ -prune -exec rm -rf {} +
# Modes are as in git, whatever the umask was that it was checked out with.
chmod -R u=rwX,go=rX "$source"

# Its own check of what is needed asks for compilers too, for any package; nothing is compiled here.
(cd "$source" && dpkg-buildpackage --build=binary --no-check-builddeps --no-sign --host-arch="$architecture" \
    >"$scratch/log" 2>&1) ||
    { tail -n 30 "$scratch/log" >&2; fail "dpkg-buildpackage failed"; }
mkdir -p dist
rm -f dist/echo[cd]_*.deb
mv "$scratch"/*.deb dist
ls dist/echo[cd]_*.deb
