# deps.sh: sourced by ./run and ./test: makes sure that Debian packages are there. Usage: need_packages PKG...
# As root it installs what is missing; with sudo it asks through sudo; else it prints the one line to type and stops.

need_packages() {
    local missing=() p
    for p in "$@"; do
        dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "This system has no apt-get. Install these (Debian names) and call again: ${missing[*]}" >&2
        exit 1
    fi
    local as=()
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -v 2>/dev/null; then
            echo "These packages are missing. As root, type:" >&2
            echo "    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as=(sudo)
    fi
    echo "Installing: ${missing[*]}" >&2
    local log
    log=$(mktemp)
    if ! { "${as[@]}" apt-get update && "${as[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "apt-get failed; its output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
}

build_packages=(gcc make libc6-dev ca-certificates libcurl4-openssl-dev libevent-dev libssl-dev libjansson-dev libyajl-dev libpcre2-dev libutf8proc-dev)
test_packages=(libcmocka-dev python3 python3-venv xz-utils curl libopenmpi-dev openmpi-bin)

# Build quietly; show everything when it fails.
build() {
    local log=build/make.log
    mkdir -p build
    make -q "$@" 2>/dev/null && return 0
    echo "Building minisgl ..." >&2
    if ! make -j"$(nproc)" "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "The build failed; its output is in $log" >&2
        exit 1
    fi
}
