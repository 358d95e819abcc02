# Shared by quickstart.sh and runtests.sh: make_venv FOLDER EXTRAS [CONSTRAINTS] sets VENV to a ready environment.
# It is made anew when setup.cfg, pyproject.toml or the constraints have changed.

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "monai_memo needs Python 3.11 or newer; set PYTHON to its path." >&2
    return 1
}

make_venv() {
    VENV="$1"
    local root python wanted constraints
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    constraints="$root/${3:-constraints.txt}"
    wanted="$(cat "$root/setup.cfg" "$root/pyproject.toml" "$constraints" | cksum)$2$root"
    if [ -f "$VENV/.ready" ] && [ "$(cat "$VENV/.ready")" = "$wanted" ]; then
        return
    fi
    python="$(find_python)"
    echo "Installing into $VENV ($("$python" --version)) ..."
    "$python" -m venv --clear "$VENV"
    # torch first and by itself, in the tested version, so that no dependency chooses another one.
    "$VENV/bin/python" -m pip install --quiet "$(grep '^torch==' "$constraints")"
    "$VENV/bin/python" -m pip install --quiet --no-compile --constraint "$constraints" --editable "$root$2"
    echo "$wanted" > "$VENV/.ready"
}
