#!/usr/bin/env bash
# Classifies photos, or folders of them, with the frozen graph of
# ./export_freeze.sh.
#
# usage: [RUN=…] [MODEL_NAME=…] ./classify.sh photo.jpg folder/ [flags of
#        classify_image.py, --help lists them]
#        ./classify.sh folder/ --sort_into=DIR   # one sub-folder per class
set -euo pipefail
program=tools/classify_image.py
# The graph is that of a run, unless another one is given.
if [[ -z "${FROZEN_FILE:-}" && ! " $*" =~ \ --?(frozen_graph|checkpoint_path) ]]; then
  uses_run=1
fi
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" --frozen_graph="${FROZEN_FILE}" \
  "${runtime_flags[@]}" "$@"
