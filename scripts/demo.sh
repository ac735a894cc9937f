#!/usr/bin/env bash
# From a fresh clone to described events: makes .venv, installs, runs the demo offline. Arguments go to `vidgru demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

setup
.venv/bin/vidgru demo "$@"
