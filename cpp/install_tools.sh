#!/usr/bin/env bash
# Installs what building and testing the C++ detector needs, on Debian and Ubuntu as root.
# Elsewhere it names the packages and leaves the machine alone; the tests then skip what is missing.
set -euo pipefail

packages=(g++ make cmake pkg-config libopencv-dev libavformat-dev libswscale-dev
    nlohmann-json3-dev libcli11-dev libgtest-dev clang clang-tidy libclang-rt-dev)
headers=libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
headers_sha256=14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08
headers_to=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/onnxruntime-dev

# Debian has ONNX Runtime's headers since 13; on 12 they are unpacked from there into .venv.
get_onnxruntime_headers() {
    local debian scratch
    if [ -d "$headers_to/include" ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
        return
    fi
    if apt-cache show libonnxruntime-dev >/dev/null 2>&1; then
        apt-get install -y --no-install-recommends libonnxruntime-dev
        return
    fi
    debian=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | head -n 1)
    scratch=$(mktemp -d)
    /usr/lib/apt/apt-helper download-file "${debian%/}/pool/main/o/onnxruntime/$headers" \
        "$scratch/$headers" "SHA256:$headers_sha256" &&
        dpkg -x "$scratch/$headers" "$scratch/all" &&
        mkdir -p "$headers_to" && cp -r "$scratch/all/usr/include" "$headers_to"
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The C++ detector is built and tested with: ${packages[*]} libonnxruntime-dev"
    exit
fi
export DEBIAN_FRONTEND=noninteractive
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    echo "Installing what building the C++ detector needs"
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } >/dev/null ||
        echo "apt-get could not install ${packages[*]}: the C++ tests will be skipped"
fi
get_onnxruntime_headers >/dev/null 2>&1 ||
    echo "The headers of ONNX Runtime could not be had: the detector is built without it"
