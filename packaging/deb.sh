#!/bin/sh
# deb.sh WHEELS MACHINE: build the Debian packages echod and echoc into dist/, for x86_64 or aarch64.
#
# In a copy of what the packages are built from: nothing else gets into them, and Debian's tools find debian/.
set -eu

fail() {
    echo "echod: $*" >&2
    exit 1
}

cd "$(dirname "$0")/.."
case $2 in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) fail "packages can be built for x86_64 and aarch64, not for $2: make deb MACHINE=x86_64" ;;
esac
command -v dpkg-buildpackage >/dev/null && command -v dh >/dev/null ||
    fail "make deb needs Debian's build tools: apt install dpkg-dev debhelper"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
source=$scratch/echod
mkdir "$source"
cp -R echod etc packaging CHANGELOG.md README.md LICENSE "$source"
cp -R packaging/debian "$source/debian"
cp -R "$1" "$source/wheels"
find "$source" -name __pycache__ -prune -exec rm -rf {} +
# Modes as in git, independent of the umask at the checkout.
chmod -R u=rwX,go=rX "$source"

# Without the check of build dependencies, which asks for compilers for any package; nothing is compiled here.
(cd "$source" && dpkg-buildpackage --build=binary --no-check-builddeps --no-sign --host-arch="$architecture" \
    >"$scratch/log" 2>&1) ||
    { tail -n 30 "$scratch/log" >&2; fail "dpkg-buildpackage failed; its last lines are above"; }
mkdir -p dist
rm -f dist/echo[cd]_*.deb
mv "$scratch"/*.deb dist
ls dist/echo[cd]_*.deb
