#!/usr/bin/env bash
# Everything that must hold: lint, types, tests. `--all` runs the slow tests too; further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

select=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    select=()
    shift
fi
setup dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -n 2 ${select[@]+"${select[@]}"} "$@"
