#!/usr/bin/env bash
# Build the documentation site into docs/_build, or where the first argument says; a warning is an error.
# The environment lies in .venv-docs, or where MEMO_VENV says. `make docs` calls it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$here/scripts/venv.sh"
make_venv "${MEMO_VENV:-$here/.venv-docs}" "[docs]"
out="${1:-$here/docs/_build}"
"$VENV/bin/python" -m sphinx -W --keep-going -q --jobs auto "$here/docs" "$out"
echo "The site: $out/index.html"
