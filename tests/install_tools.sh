#!/usr/bin/env bash
# Installs what the tests of the service need besides Python packages, on Debian and Ubuntu:
# Chromium, as root, and Prometheus, which is only unpacked into .venv, so that no service starts.
# Elsewhere it leaves the machine alone; the tests then skip what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

prometheus_to=.venv/prometheus

get_chromium() {
    if command -v chromium >/dev/null; then
        return
    fi
    [ "$(id -u)" = 0 ] && apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            chromium fonts-dejavu-core
}

get_prometheus() {
    local scratch
    if command -v promtool >/dev/null || [ -x "$prometheus_to/usr/bin/promtool" ]; then
        return
    fi
    if [ "$(id -u)" = 0 ]; then
        apt-get update
    fi
    scratch=$(mktemp -d) &&
        (cd "$scratch" && apt-get download prometheus) &&
        dpkg -x "$scratch"/prometheus_*.deb "$prometheus_to" &&
        rm -r "$scratch"
}

if ! command -v apt-get >/dev/null; then
    echo "The service is tested with: chromium prometheus"
    exit
fi
get_chromium >/dev/null 2>&1 || echo "Chromium could not be had: the page goes untested"
get_prometheus >/dev/null 2>&1 || echo "Prometheus could not be had: metrics and alerts are tested less"
