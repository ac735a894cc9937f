# Sourced by the other scripts: `setup [EXTRA]` makes .venv and installs vidgru into it, once per change of pyproject.toml.

setup() {
    local extra=${1:-} python="" candidate
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "vidgru needs Python 3.11 or newer; none was found on PATH. Install it and run this again." >&2
        return 1
    fi
    if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv; then
        echo "could not make a virtual environment: on Debian or Ubuntu, apt-get install python3-venv" >&2
        return 1
    fi
    local stamp=".venv/installed-${extra:-core}" want
    want=$(cksum <pyproject.toml)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "installing vidgru and what it needs into .venv (PyTorch is large: some minutes the first time)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}"
        echo "$want" >"$stamp"
    fi
    local why
    if ! why=$(.venv/bin/python -c 'import cv2' 2>&1); then
        echo "OpenCV does not load: ${why##*$'\n'}" >&2
        echo "on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0" >&2
        return 1
    fi
    # Ultralytics is not to install packages or report usage by itself.
    export YOLO_AUTOINSTALL=false YOLO_OFFLINE=1
}
