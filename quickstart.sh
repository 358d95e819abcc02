#!/usr/bin/env bash
# Create a virtual environment, install monai_memo, and audit the built-in demo.
# The environment lies in .venv, or where MEMO_VENV says; the result in demo_audit, or where the first argument says.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/scripts/venv.sh"
make_venv "${MEMO_VENV:-$here/.venv}" ""
out="${1:-demo_audit}"
echo "Auditing the demo: 300 training, 200 held-out and 150 synthetic chest phantoms, 45 of them planted copies ..."
"$VENV/bin/monai-memo" demo --out "$out"
