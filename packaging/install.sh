#!/bin/sh
# install.sh install|uninstall: put echod and echoc into the system, or take them out again.
#
# From the environment:
#   PREFIX   where to, /usr/local if not said; configuration is in /etc all the same
#   DESTDIR  a directory to put everything below, as packages are made; then nothing is started, stopped or compiled
#   WHEELS   what wheels.sh has filled; for `install`
#   PYTHON   the interpreter to run on; /usr/bin/python3 if not said
#
# Without DESTDIR, and where systemd runs: `install` leaves a running service, or the running one in place if the new
# version refuses the present configuration; `uninstall` stops it. A configuration that somebody has changed is kept.
set -eu

fail() {
    echo "echod: $*" >&2
    exit 1
}

prefix=${PREFIX:-/usr/local}
prefix=${prefix%/}
root=${DESTDIR-}
root=${root%/}
interpreter=${PYTHON:-/usr/bin/python3}
source=$(cd "$(dirname "$0")/.." && pwd)

# Where things are at run time; "$root" goes before each when they are put there.
bin=$prefix/bin
lib=$prefix/lib/echod
share=$prefix/share/echod
doc=$prefix/share/doc/echod
man=$prefix/share/man
config=/etc/echod.toml
case $prefix in
    /usr | /usr/local) units=$prefix/lib/systemd/system ;;
    *) units=/etc/systemd/system ;;  # systemd looks nowhere else that is the administrator's
esac

# The units as they are for this place: their paths, written for /usr, are looked up here.
unit() {
    sed -e "s|/usr/bin/echod|$bin/echod|g" -e "s|/usr/lib/echod|$lib|g" -e "s|/usr/share/echod|$share|g" \
        -e "s|/usr/bin/python3|$interpreter|g" \
        -e "/^InaccessiblePaths=/s# -/$top\( \|\$\)#\1#" -e "/^ExecPaths=/s|\$|$python_lib|" "$1"
}

# One service of many, each with its configuration: the same unit, and no second copy of it to keep true.
instance() {
    sed -e '/^Description=/s|$|, %i|' -e "s|$bin/echod\$|& --config /etc/echod/%i.toml|" \
        -e "s|$bin/echod --check-config|& --config /etc/echod/%i.toml|" \
        -e '1s|.*|# echod@NAME under systemd 252 or newer, one for each /etc/echod/NAME.toml: echod.service, made into a template.|'
}

put() {
    install -D -m "$1" "$2" "$root$3"
}

check() {
    case $prefix in
        /*) ;;
        *) fail "PREFIX=$prefix is not absolute; say a directory like /usr/local" ;;
    esac
    case $prefix in
        *[!-A-Za-z0-9_./+]*) fail "PREFIX=$prefix has characters that a unit file cannot; say a directory like /usr/local" ;;
        /home/* | /root/* | /run/user/*) fail "PREFIX=$prefix is in a home, where the service sees nothing (ProtectHome=yes); say a directory like /usr/local" ;;
        /tmp/* | /var/tmp/* | /dev/*) fail "PREFIX=$prefix is where the service sees nothing (PrivateTmp=yes); say a directory like /usr/local" ;;
    esac
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "only root can write to $prefix and /etc: sudo make $1, or say DESTDIR=directory"
}

install_all() {
    [ -f "${WHEELS-}/complete" ] || fail "WHEELS=${WHEELS-} holds no wheels; run make wheels"
    case $interpreter in
        /*) ;;
        *) interpreter=$(command -v "$interpreter") || fail "PYTHON=$PYTHON is not to be found" ;;
    esac
    # Not where it runs on another machine, as a package does.
    [ -n "$root" ] || "$interpreter" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
        fail "$interpreter is no Python from 3.11 to 3.14; say another: make install PYTHON=/path/to/python3"
    top=$(echo "$prefix" | cut -d / -f 2)
    case $interpreter in
        /usr/bin/*) python_lib= ;;  # it and its libraries are in ExecPaths= already
        *) python_lib=" $("$interpreter" -c 'import sys; print(sys.base_prefix)')" ;;
    esac

    rm -rf "$root$lib"
    mkdir -p "$root$lib"
    for wheel in "$WHEELS"/*.whl; do
        "$interpreter" -m zipfile -e "$wheel" "$root$lib"
    done
    # What pip alone reads; the licences are in the copyright file. What stays says which versions these are, and of
    # what the compiled module was made.
    rm -rf "$root$lib"/*.dist-info/licenses
    find "$root$lib" -path '*.dist-info/*' -type f ! -name METADATA ! -path '*/sboms/*' -delete
    # No client: it has an executable of its own.
    mkdir "$root$lib/echod"
    cp "$source"/echod/*.py "$root$lib/echod"
    find "$root$lib" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
    put 755 "$source/packaging/systemd/back-off" "$lib/back-off"

    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # -I and -S: nothing but these modules and Python's own; what else is installed for it cannot do harm here.
    cat >"$scratch/echod" <<END
#!$interpreter -IS
import sys
sys.path.insert(0, "$lib")
from echod.cli import main
main()
END
    "$interpreter" "$source/packaging/zipapp.py" "$source/echod" "$scratch/echoc"
    [ "$interpreter" = /usr/bin/python3 ] || sed -i "1s|/usr/bin/python3|$interpreter|" "$scratch/echoc"
    put 755 "$scratch/echod" "$bin/echod"
    put 755 "$scratch/echoc" "$bin/echoc"

    for name in echod.service echod.socket privileged-port.conf socket-activated.conf; do
        unit "$source/packaging/systemd/$name" >"$scratch/$name"
    done
    instance <"$scratch/echod.service" >"$scratch/echod@.service"
    for name in echod.service echod@.service echod.socket; do
        put 644 "$scratch/$name" "$units/$name"
    done
    for name in privileged-port.conf socket-activated.conf; do
        put 644 "$scratch/$name" "$share/$name"
    done

    for page in "$source"/packaging/man/*.[1-8]; do
        put 644 "$page" "$man/man${page##*.}/$(basename "$page")"
    done
    put 644 "$source/packaging/debian/copyright" "$doc/copyright"
    put 644 "$source/etc/echod.toml" "$share/echod.toml"
    [ -e "$root$config" ] || put 644 "$source/etc/echod.toml" "$config"
    if [ -z "$root" ]; then
        "$interpreter" -m compileall -q "$lib"
        start
    fi
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

# The first time it is enabled and started. Later, what runs is asked first, by the reload, whether the configuration
# is right for the new version; if it is not, what runs goes on, and systemctl has said why.
start() {
    systemd_runs || { echo "echod: installed; systemd does not run here, so nothing is started"; return; }
    systemctl daemon-reload
    if ! systemctl --quiet is-active echod.service; then
        systemctl enable --now echod.service
    elif systemctl reload echod.service; then
        systemctl restart echod.service
    else
        fail "the new version does not accept the present configuration, so the old one goes on running; mend it, then systemctl restart echod"
    fi
}

uninstall_all() {
    if [ -z "$root" ] && systemd_runs; then
        for unit in echod.socket echod.service; do
            [ ! -e "$units/$unit" ] || systemctl --quiet disable --now "$unit"
        done
        systemctl stop 'echod@*.service'
    fi
    if [ ! -f "$root$share/echod.toml" ] || ! cmp -s "$root$share/echod.toml" "$root$config"; then
        [ ! -e "$root$config" ] || echo "echod: $root$config was changed, and is kept"
    else
        rm -f "$root$config"
    fi
    rm -f "$root$bin/echod" "$root$bin/echoc"
    rm -f "$root$units/echod.service" "$root$units/echod@.service" "$root$units/echod.socket"
    for page in "$source"/packaging/man/*.[1-8]; do
        rm -f "$root$man/man${page##*.}/$(basename "$page")"
    done
    rm -rf "$root$lib" "$root$share" "$root$doc"
    if [ -z "$root" ] && systemd_runs; then
        systemctl daemon-reload
    fi
}

case ${1-} in
    install | uninstall) ;;
    *) fail "usage: install.sh install|uninstall" ;;
esac
check "$1"
"$1"_all
