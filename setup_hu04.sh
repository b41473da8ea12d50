#!/usr/bin/env bash
# Creates .venv, installs raudo into it, and on request runs the demo, the linters or the tests.
# What is installed already is left alone until pyproject.toml changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
usage: ./setup_hu04.sh            create .venv and install what optimizing a model needs
       ./setup_hu04.sh --demo     the same, then optimize the sample model
       ./setup_hu04.sh --lint     the same with all extras, then run the linters
       ./setup_hu04.sh --test [PYTEST ARGUMENTS]
                                  the same with all extras, then run the linters and the tests
environment:
       PYTHON           the Python (3.10 or newer) to create .venv with
       RAUDO_PIP_ARGS   more arguments for 'pip install', for instance another index
TEXT
}

fail() {
    echo "setup_hu04: $1" >&2
    exit 2
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    local candidate candidates=(python3 python3.{13,12,11,10} python)
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10 or newer"
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.10 or newer was found; install one, or name it: PYTHON=/path/to/python $0"
}

create_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python has no venv module; on Debian and Ubuntu: sudo apt install python3-venv"
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python could not create .venv"
}

install() {
    if ! is_recent .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        create_venv
    fi
    echo "Installing raudo[$2]: some minutes the first time"
    # Word splitting is wanted: RAUDO_PIP_ARGS holds several arguments.
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install --disable-pip-version-check ${RAUDO_PIP_ARGS:-} "pip>=23" -e ".[$2]" ||
        fail "pip could not install raudo; its message is above"
    fingerprint >".venv/installed-$1"
}

fingerprint() {
    echo "$(cksum <pyproject.toml) $PWD"
}

is_installed() {
    [ -x .venv/bin/python ] && [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$(fingerprint)" ]
}

lint() {
    .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
}

case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN*) fail 'on Windows, run .\setup_hu04.ps1 in PowerShell' ;;
esac
command=${1:-}
case "$command" in
    "" | --demo) is_installed test || is_installed demo || install demo "torch,onnx,openvino,report" ;;
    --lint | --test) is_installed test || install test "all,dev" ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && exit 2 ;;
esac
shift $(($# > 0))
if [ ! -e model.pt ]; then
    cp samples/model.pt model.pt
    echo "model.pt was missing: it is now a copy of samples/model.pt; put your own in its place"
fi
case "$command" in
    "") echo "raudo is installed; next: source .venv/bin/activate && raudo doctor" ;;
    --demo) .venv/bin/raudo optimize samples/model.pt --data samples/coco-mini/data.yaml ;;
    --lint) lint ;;
    --test)
        # The tests start hundreds of processes: without bytecode each would compile raudo again.
        unset PYTHONDONTWRITEBYTECODE
        cpp/install_tools.sh && tests/install_tools.sh && lint &&
            .venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"
        ;;
esac
