#!/bin/sh
# All evidence that a GPU can give, in one go: see ci/gpu_evidence.py --help.
#
#   ci/gpu_evidence.sh                      every stage, on this machine's GPU
#   ci/gpu_evidence.sh verify spaces        these stages
#   ci/gpu_evidence.sh --simulate h200      a rehearsal without a GPU, in a few minutes
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" ci/gpu_evidence.py "$@"
