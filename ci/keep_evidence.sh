#!/bin/sh
# Installs what ci/gpu_evidence.sh brought back: see ci/keep_evidence.py --help.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" ci/keep_evidence.py "$@"
