#!/bin/sh
# install.sh install|uninstall: install echod and echoc, or remove them.
#
# From the environment:
#   PREFIX   the directory to install into (default: /usr/local); the configuration is in /etc in any case
#   DESTDIR  a directory in place of /, to build packages; then nothing is started, stopped or compiled
#   WHEELS   the directory that wheels.sh has filled (`install` only)
#   PYTHON   the interpreter that runs echod and echoc (default: /usr/bin/python3)
#
# Without DESTDIR, and where systemd runs: the first `install` starts the service; a later one restarts the units that
# run, unless the new version does not accept the present configuration; `uninstall` stops them. A configuration that
# was changed is kept.
set -eu
umask 022  # all users can read what is installed, whatever the caller's umask is

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

# Paths at run time; "$root" precedes each of them during the installation.
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
    *) units=/etc/systemd/system ;;  # systemd reads no other directory of the administrator's
esac

# check_place VARIABLE PATH: fail unless the service can see the path, and a unit and a #! line can name it.
check_place() {
    case $2/ in
        [!/]*) fail "$1=$2 must be an absolute path, such as /usr/local" ;;
        *[!-A-Za-z0-9_./+]*) fail "$1=$2 has characters that a unit cannot contain; choose a path such as /usr/local" ;;
        /home/* | /root/* | /run/user/*)
            fail "$1=$2 is in a home directory, which the service cannot see; choose a path such as /usr/local" ;;
        /tmp/* | /var/* | /dev/* | /proc/* | /sys/* | /run/* | /boot/*)
            fail "$1=$2 is hidden from the service or not permanent; choose a path such as /usr/local" ;;
    esac
}

check() {
    check_place PREFIX "$prefix"
    [ "$staged" ] || [ "$(id -u)" = 0 ] ||
        fail "only root can write to $prefix and /etc: sudo make $1, or set DESTDIR"
}

check_python() {
    interpreter=$(command -v "$interpreter") || fail "PYTHON=$PYTHON does not exist; try /usr/bin/python3"
    check_place PYTHON "$interpreter"
    # With DESTDIR the interpreter of another machine will run it.
    [ "$staged" ] || "$interpreter" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' ||
        fail "$interpreter is not Python 3.11 to 3.14; choose another: make install PYTHON=/path/to/python3"
    case $interpreter in
        /usr/bin/*) python_lib= ;;  # the interpreter and its libraries are in ExecPaths= already
        *) python_lib=" -$("$interpreter" -c 'import sys; print(sys.base_prefix)')/lib" ;;
    esac
}

# Print a unit or drop-in with the paths of this installation in place of those below /usr. A directory that the service
# needs is taken out of InaccessiblePaths=.
unit() {
    top=$(echo "$prefix" | cut -d / -f 2)
    python_top=$(echo "$interpreter" | cut -d / -f 2)
    sed -e "s|/usr/bin/echod|$bin/echod|g" -e "s|/usr/lib/echod|$lib|g" -e "s|/usr/share/echod|$share|g" \
        -e "s|/usr/bin/python3|$interpreter|g" \
        -e "/^InaccessiblePaths=/s# -/\($top\|$python_top\)\( \|\$\)#\2#" -e "/^ExecPaths=/s|\$|$python_lib|" "$1"
}

# Turn echod.service into the template echod@.service, whose instances read /etc/echod/NAME.toml.
instance() {
    sed -e '/^Description=/s|$|, %i|' -e "s|$bin/echod\$|& --config /etc/echod/%i.toml|" \
        -e "s|$bin/echod --print-config|& --config /etc/echod/%i.toml|" \
        -e '1s|.*|# echod@NAME.service, for systemd 252 or newer: echod.service, configured by /etc/echod/NAME.toml.|'
}

put() {
    install -D -m "$1" "$2" "$root$3"
}

# Fill the new libraries beside the old ones before replacing any: a full disk must not remove what runs.
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

# put_modules DIRECTORY TEST...: install the modules of echod/ that find(1) selects by TEST, in the same subdirectories.
put_modules() {
    into=$1
    shift
    (cd "$source/echod" && find . -name '*.py' "$@") | while read -r module; do
        install -D -m 644 "$source/echod/$module" "$into/$module"
    done
}

fill_daemon() {
    rm -rf "$1"
    mkdir -p "$1/echod"
    for wheel in "$WHEELS"/*.whl; do
        "$interpreter" -m zipfile -e "$wheel" "$1"
    done
    # Only pip reads these files; the licences are in the copyright file. METADATA has the versions, and sboms/ what the
    # compiled module was made of.
    rm -rf "$1"/*.dist-info/licenses
    find "$1" -path '*.dist-info/*' -type f ! -name METADATA ! -path '*/sboms/*' -delete
    put_modules "$1/echod" ! -path './client/*'
    for name in announce-stop ask-reload back-off; do
        install -m 755 "$source/packaging/systemd/$name" "$1"
    done
}

# A library of its own, so that either program can be installed without the other. Not a zip archive, which Python would
# compile at each start; that takes longer than the rest of the start.
fill_client() {
    rm -rf "$1"
    mkdir -p "$1/echod"
    put_modules "$1/echod" \( -path './client/*' -o -path ./__init__.py \)
}

# put_command NAME LIBRARY MODULE
put_command() {
    # -I and -S: only these modules and Python's own; other packages that are installed for Python cannot interfere.
    cat >"$scratch/$1" <<END
#!$interpreter -IS
import sys
sys.path.insert(0, "$2")
try:
    from $3 import main
    sys.exit(main())
except KeyboardInterrupt:  # during the import, before main() can handle it
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
    sh "$source/packaging/wheels.sh" --check "${WHEELS-}" || fail "WHEELS=${WHEELS-} is incomplete; run make wheels"
    first=yes
    ! is_ours || first=
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch" "$root$lib.new" "$root$client_lib.new"' EXIT
    trap 'exit 1' HUP INT TERM

    put_libraries
    put_command echod "$lib" echod.__main__
    put_command echoc "$client_lib" echod.client.cli
    put_units
    put_papers
    [ "$staged" ] || start
}

# A reload of each running unit first checks its configuration with the new version. If that fails, systemctl prints the
# reason, and the old version keeps running.
start() {
    [ -d /run/systemd/system ] || { echo "echod: installed, but not started: systemd does not run here"; return; }
    systemctl daemon-reload
    [ -z "$first" ] || systemctl --quiet is-active echod.service || { systemctl enable --now echod.service; return; }
    kept=
    for unit in $(systemctl list-units --plain --no-legend --state=active 'echod.service' 'echod@*.service' |
        cut -d ' ' -f 1); do
        if systemctl reload "$unit"; then systemctl restart "$unit"; else kept="$kept $unit"; fi
    done
    [ -z "$kept" ] ||
        fail "the old version keeps running:$kept; correct the problem printed above, then: systemctl restart$kept"
}

stop() {
    for link in /etc/systemd/system/*.wants/echod@*.service; do
        [ ! -L "$link" ] || systemctl --quiet disable "$(basename "$link")"
    done
    systemctl --quiet disable --now echod.socket echod.service
    systemctl stop 'echod@*.service'
}

uninstall_all() {
    is_ours || fail "echod is not installed in $root$prefix; choose another: make uninstall PREFIX=directory"
    manages=
    [ "$staged" ] || [ ! -d /run/systemd/system ] || manages=yes
    [ -z "$manages" ] || stop
    if dpkg-query --search "$root$config" >/dev/null 2>&1; then
        echo "echod: kept $config, which belongs to the Debian package; to start that: systemctl enable --now echod"
    elif cmp -s "$root$share/echod.toml" "$root$config"; then
        rm -f "$root$config"
    elif [ -e "$root$config" ]; then
        echo "echod: kept $root$config, because it was changed"
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
