# Used by runtests.sh --label: the review with a real MONAI Label server and a real browser.

find_browser() {
    BROWSER="" DRIVER=""
    local candidate
    for candidate in "${MEMO_BROWSER:-}" chromium chromium-browser google-chrome chrome; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1; then
            BROWSER="$(command -v "$candidate")"
            break
        fi
    done
    DRIVER="$(command -v "${MEMO_CHROMEDRIVER:-chromedriver}" || true)"
    [ -n "$BROWSER" ] && [ -n "$DRIVER" ]
}

# Debian's packages, where this is a machine for tests (CI) and we may install them.
install_browser() {
    [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing chromium and chromium-driver ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium chromium-driver fonts-dejavu-core >/dev/null
}

label_tests() {
    local root="$1"
    shift
    if ! find_browser && ! { install_browser && find_browser; }; then
        echo "runtests.sh --label needs a browser and its driver: chromium and chromedriver on PATH, or named by" >&2
        echo "MEMO_BROWSER and MEMO_CHROMEDRIVER. On Debian and Ubuntu: apt-get install chromium chromium-driver" >&2
        echo "To test the server without the page: MEMO_WITHOUT_BROWSER=1 ./runtests.sh --label" >&2
        if [ "${MEMO_WITHOUT_BROWSER:-}" != 1 ]; then
            return 1
        fi
    fi
    make_venv "${MEMO_LABEL_VENV:-$root/.venv-label}" "[label,label-test]" constraints-label.txt
    # MONAI Label finds the tools of its environment by PATH.
    PATH="$VENV/bin:$PATH" MEMO_BROWSER="$BROWSER" MEMO_CHROMEDRIVER="$DRIVER" OMP_NUM_THREADS=1 \
        "$VENV/bin/python" -m pytest -p no:cacheprovider -ra tests/label/server tests/label/browser "$@"
}
