#!/usr/bin/env bash
# Create a virtual environment, install monai_memo with its test extras, then lint, check types and test.
# The environment lies in .venv-test, or where MEMO_VENV says. Arguments go to pytest.
#
# With --label first: test the review instead, with a real MONAI Label server and a real browser, in an environment of
# its own (.venv-label, or where MEMO_LABEL_VENV says).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/scripts/venv.sh"
cd "$here"
if [ "${1:-}" = --label ]; then
    source "$here/scripts/label_tests.sh"
    shift
    label_tests "$here" "$@"
    exit
fi
make_venv "${MEMO_VENV:-$here/.venv-test}" "[test]"
"$VENV/bin/ruff" check monai_memo tests tutorials
"$VENV/bin/ruff" format --check monai_memo tests tutorials
"$VENV/bin/mypy"
# One thread for each test process: the tests themselves run side by side.
export OMP_NUM_THREADS=1
"$VENV/bin/python" -m pytest -n "${MEMO_TEST_PROCESSES:-2}" "$@"
