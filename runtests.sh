#!/usr/bin/env bash
# Create a virtual environment, install monai_memo with its test extras, then lint, check types and test.
# The environment lies in .venv-test, or where MEMO_VENV says. Arguments go to pytest.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/scripts/venv.sh"
make_venv "${MEMO_VENV:-$here/.venv-test}" "[test]"
cd "$here"
"$VENV/bin/ruff" check monai_memo tests
"$VENV/bin/ruff" format --check monai_memo tests
"$VENV/bin/mypy"
# One thread for each test process: the tests themselves run side by side.
export OMP_NUM_THREADS=1
"$VENV/bin/python" -m pytest -n "${MEMO_TEST_PROCESSES:-2}" "$@"
