#!/bin/sh
# install.sh install|uninstall: put echod and echoc into the system, or take them out again.
#
# From the environment:
#   PREFIX   where to, /usr/local if not said; configuration is in /etc all the same
#   DESTDIR  a directory to put everything below, as packages are made; then nothing is started, stopped or compiled
#   WHEELS   what wheels.sh has filled; for `install`
#   PYTHON   the interpreter to run on; /usr/bin/python3 if not said
#
# Without DESTDIR, and where systemd runs: `install` leaves a running service the first time, and later restarts what
# runs, unless the new version refuses the present configuration; `uninstall` stops it. A configuration that somebody
# has changed is kept.
set -eu
umask 022  # what is installed is for all to read, whoever installs it

fail() {
    echo "echod: $*" >&2
    exit 1
}

source=$(cd "$(dirname "$0")/.." && pwd)
prefix=$(echo "${PREFIX:-/usr/local}" | sed 's|//*|/|g; s|/$||')
root=${DESTDIR-}
root=${root%/}
staged=${DESTDIR:+yes}
interpreter=${PYTHON:-/usr/bin/python3}

# Where things are at run time; "$root" goes before each when they are put there.
bin=$prefix/bin
lib=$prefix/lib/echod
client_lib=$prefix/lib/echoc
share=$prefix/share/echod
client_share=$prefix/share/echoc
doc=$prefix/share/doc/echod
man=$prefix/share/man
completions=$prefix/share/bash-completion/completions
functions=$prefix/share/zsh/site-functions
config=/etc/echod.toml
case $prefix in
    /usr | /usr/local) units=$prefix/lib/systemd/system ;;
    *) units=/etc/systemd/system ;;  # systemd looks nowhere else that is the administrator's
esac

# check_place VARIABLE PATH: the service must be able to see it, and a unit and a #! line to name it.
check_place() {
    case $2/ in
        [!/]*) fail "$1=$2 is not absolute; say a path like /usr/local" ;;
        *[!-A-Za-z0-9_./+]*) fail "$1=$2 has characters that a unit cannot name; say a path like /usr/local" ;;
        /home/* | /root/* | /run/user/*) fail "$1=$2 is in a home, where the service sees nothing; say a path like /usr/local" ;;
        /tmp/* | /var/* | /dev/* | /proc/* | /sys/* | /run/* | /boot/*)
            fail "$1=$2 is where the service sees nothing, or nothing that lasts; say a path like /usr/local" ;;
    esac
}

check() {
    check_place PREFIX "$prefix"
    [ "$staged" ] || [ "$(id -u)" = 0 ] ||
        fail "only root can write to $prefix and /etc; sudo make $1, or say DESTDIR=directory"
}

check_python() {
    interpreter=$(command -v "$interpreter") || fail "PYTHON=$PYTHON is not to be found; say a path like /usr/bin/python3"
    check_place PYTHON "$interpreter"
    # Not where it is to run on another machine, as a package is.
    [ "$staged" ] || "$interpreter" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
        fail "$interpreter is no Python from 3.11 to 3.14; say another: make install PYTHON=/path/to/python3"
    case $interpreter in
        /usr/bin/*) python_lib= ;;  # it and its libraries are in ExecPaths= already
        *) python_lib=" -$("$interpreter" -c 'import sys; print(sys.base_prefix)')/lib" ;;
    esac
}

# The units as they are for this place: their paths, written for /usr, are looked up here, and where the service is to
# see something is not made inaccessible.
unit() {
    top=$(echo "$prefix" | cut -d / -f 2)
    python_top=$(echo "$interpreter" | cut -d / -f 2)
    sed -e "s|/usr/bin/echod|$bin/echod|g" -e "s|/usr/lib/echod|$lib|g" -e "s|/usr/share/echod|$share|g" \
        -e "s|/usr/bin/python3|$interpreter|g" \
        -e "/^InaccessiblePaths=/s# -/\($top\|$python_top\)\( \|\$\)#\2#" -e "/^ExecPaths=/s|\$|$python_lib|" "$1"
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

# Both beside the old ones first, and then in their places: a full disk must not take away what runs.
put_libraries() {
    fill_daemon "$root$lib.new"
    fill_client "$root$client_lib.new"
    for library in "$lib" "$client_lib"; do
        [ "$staged" ] || "$interpreter" -m compileall -q -s "$root$library.new" -p "$library" "$root$library.new"
    done
    for library in "$lib" "$client_lib"; do
        rm -rf "$root$library"
        mv "$root$library.new" "$root$library"
    done
}

fill_daemon() {
    rm -rf "$1"
    mkdir -p "$1/echod"
    for wheel in "$WHEELS"/*.whl; do
        "$interpreter" -m zipfile -e "$wheel" "$1"
    done
    # What pip alone reads; the licences are in the copyright file. What stays says which versions these are, and of
    # what the compiled module was made.
    rm -rf "$1"/*.dist-info/licenses
    find "$1" -path '*.dist-info/*' -type f ! -name METADATA ! -path '*/sboms/*' -delete
    (cd "$source/echod" && find . -name '*.py' ! -path './client/*') | while read -r module; do
        install -D -m 644 "$source/echod/$module" "$1/echod/$module"
    done
    for name in announce-restart ask-reload back-off; do
        install -m 755 "$source/packaging/systemd/$name" "$1"
    done
}

# A library of its own, so that either can be there without the other. Not one file, a zip archive: Python would compile
# that anew at each start, which takes longer than the rest of it.
fill_client() {
    rm -rf "$1"
    mkdir -p "$1/echod"
    install -m 644 "$source/echod/__init__.py" "$1/echod"
    (cd "$source/echod" && find client -name '*.py') | while read -r module; do
        install -D -m 644 "$source/echod/$module" "$1/echod/$module"
    done
}

# put_command NAME LIBRARY MODULE
put_command() {
    # -I and -S: nothing but these modules and Python's own; what else is installed for it cannot do harm here.
    cat >"$scratch/$1" <<END
#!$interpreter -IS
import sys
sys.path.insert(0, "$2")
try:
    from $3 import main
    sys.exit(main())
except KeyboardInterrupt:  # while it is read, before it can say so itself
    sys.exit(130)
END
    put 755 "$scratch/$1" "$bin/$1"
}

put_units() {
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
}

put_papers() {
    for page in "$source"/packaging/man/*.[1-8]; do
        put 644 "$page" "$man/man${page##*.}/$(basename "$page")"
    done
    for name in echod echoc; do
        put 644 "$source/packaging/completions/bash/$name" "$completions/$name"
        put 644 "$source/packaging/completions/zsh/_$name" "$functions/_$name"
    done
    put 644 "$source/packaging/echoc.schema.json" "$client_share/echoc.schema.json"
    put 644 "$source/packaging/debian/copyright" "$doc/copyright"
    put 644 "$source/etc/echod.toml" "$share/echod.toml"
    [ -e "$root$config" ] || put 644 "$source/etc/echod.toml" "$config"
}

is_ours() {
    grep -qx "ExecStart=$bin/echod" "$root$units/echod.service" 2>/dev/null
}

install_all() {
    check_python
    sh "$source/packaging/wheels.sh" --check "${WHEELS-}" || fail "WHEELS=${WHEELS-} is not complete; run make wheels"
    first=yes
    ! is_ours || first=
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch" "$root$lib.new" "$root$client_lib.new"' EXIT
    trap 'exit 1' HUP INT TERM

    put_libraries
    put_command echod "$lib" echod.cli
    put_command echoc "$client_lib" echod.client.cli
    put_units
    put_papers
    [ "$staged" ] || start
}

# What runs is asked by its reload whether its configuration is right for the new version; if not, it goes on as it is,
# and systemctl has said why.
start() {
    [ -d /run/systemd/system ] || { echo "echod: installed; systemd does not run here, so nothing is started"; return; }
    systemctl daemon-reload
    [ -z "$first" ] || systemctl --quiet is-active echod.service || { systemctl enable --now echod.service; return; }
    kept=
    for unit in $(systemctl list-units --plain --no-legend --state=active 'echod.service' 'echod@*.service' |
        cut -d ' ' -f 1); do
        if systemctl reload "$unit"; then systemctl restart "$unit"; else kept="$kept $unit"; fi
    done
    [ -z "$kept" ] ||
        fail "the new version was not put to work, and the old one goes on running:$kept; mend what is told above, then: systemctl restart$kept"
}

stop() {
    for link in /etc/systemd/system/*.wants/echod@*.service; do
        [ ! -L "$link" ] || systemctl --quiet disable "$(basename "$link")"
    done
    systemctl --quiet disable --now echod.socket echod.service
    systemctl stop 'echod@*.service'
}

uninstall_all() {
    is_ours || fail "nothing is installed in $root$prefix; say where: make uninstall PREFIX=directory"
    manages=
    [ "$staged" ] || [ ! -d /run/systemd/system ] || manages=yes
    [ -z "$manages" ] || stop
    if dpkg-query --search "$root$config" >/dev/null 2>&1; then
        echo "echod: $config belongs to the Debian package echod, and is kept; to have that serve: systemctl enable --now echod"
    elif cmp -s "$root$share/echod.toml" "$root$config"; then
        rm -f "$root$config"
    elif [ -e "$root$config" ]; then
        echo "echod: $root$config was changed, and is kept"
    fi
    rm -f "$root$bin/echod" "$root$bin/echoc"
    rm -f "$root$completions/echod" "$root$completions/echoc" "$root$functions/_echod" "$root$functions/_echoc"
    rm -f "$root$units/echod.service" "$root$units/echod@.service" "$root$units/echod.socket"
    for page in "$source"/packaging/man/*.[1-8]; do
        rm -f "$root$man/man${page##*.}/$(basename "$page")"
    done
    rm -rf "$root$lib" "$root$client_lib" "$root$share" "$root$client_share" "$root$doc"
    [ -z "$manages" ] || systemctl daemon-reload
}

case ${1-} in
    install | uninstall) ;;
    *) fail "usage: install.sh install|uninstall" ;;
esac
check "$1"
"$1"_all
