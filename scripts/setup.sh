#!/bin/sh
# Make .venv hold what pyproject.toml and constraints.txt ask for; do nothing when it already does.
#
#   scripts/setup.sh              what generating needs
#   scripts/setup.sh dev,curate   that and these extras
#
# PYTHON       the interpreter to use (default: the first of python3, python3.14 ... python3.11 that is new enough)
# TORCH_INDEX  the index to take PyTorch's wheels from (default: the one .venv was made with, or else what
#              pip gives on this platform); another index than before makes .venv anew
set -eu
cd "$(dirname "$0")/.."
extras=${1:-}
need_gb=6

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# What .venv was made as: the folder it works in and where its torch came from.
made_as=.venv/made-as
index=${TORCH_INDEX:-$(sed -n 2p "$made_as" 2>/dev/null || true)}

# Stamps: one file for each list of extras, holding a fingerprint of all that decides its content.
fingerprint() {
    { cat pyproject.toml constraints.txt; printf '%s\n' "$PWD" "$index"; } | cksum
}
stamp=.venv/installed-${extras:-core}
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then
    exit 0
fi

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$name"; then
            python=$name
            return
        fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1) || found="no ${PYTHON:-python3}"
    fail "Python 3.11 or newer is needed, found $found; install one, or name it: PYTHON=/path/to/python3.12"
}
find_python

"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$python cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv)"

free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free_gb" -ge "$need_gb" ] ||
    fail "$free_gb GB are free in $PWD, the environment needs up to $need_gb GB; free some space"

# Another source of torch, or a broken or moved environment: begin anew.
if [ "$(cat "$made_as" 2>/dev/null)" != "$(printf '%s\n%s' "$PWD" "$index")" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    echo "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "could not make .venv in $PWD; is the folder writable?"
    printf '%s\n%s\n' "$PWD" "$index" >"$made_as"
fi

# pip speaks into a log; a person gets one line.
log=.venv/install.log
: >"$log"
install() {
    .venv/bin/python -m pip install --disable-pip-version-check --quiet "$@" >>"$log" 2>&1 && return
    if grep -qE 'No space left on device|Disk quota exceeded' "$log"; then
        fail "the disk filled up while installing; free some space and run this again"
    elif grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries exceeded|Connection (refused|reset)|Network is unreachable' "$log"; then
        fail "the package registry cannot be reached; check the network and pip's settings (details: $log)"
    fi
    fail "pip could not install: $(grep -E '^ERROR' "$log" | head -n 1) (details: $log)"
}

torch=$(grep -E '^torch==' constraints.txt)
echo "installing $torch${index:+ from $index} and ${extras:-the core} (minutes, the first time)"
install ${index:+--index-url "$index"} "$torch"
install --constraint constraints.txt --editable ".${extras:+[$extras]}"

fingerprint >"$stamp"
[ -z "$extras" ] || fingerprint >.venv/installed-core # any list of extras has the core in it
