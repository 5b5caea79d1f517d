#!/usr/bin/env bash
# Chooses which photos of a folder to label next: those that the run's classifier
# is least certain about and that are unlike each other. Prints them as CSV, with
# the class that it suggests; --sort_into=DIR also copies them into one sub-folder
# per suggested class, for you to correct. Uses the frozen graph of
# ./export_freeze.sh.
#
# usage: [RUN=…] [MODEL_NAME=…] ./label_next.sh FOLDER [--count=50] \
#        [--sort_into=DIR] [flags of label_next.py, --help lists them]
set -euo pipefail
program=tools/label_next.py
# The graph is that of a run, unless another one is given.
if [[ -z "${FROZEN_FILE:-}" && ! " $*" =~ \ --?frozen_graph ]]; then
  uses_run=1
fi
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

# Several threads for these small matrices wait for each other beside other work.
OPENBLAS_NUM_THREADS=1 exec "${VENV_PYTHON}" "${program}" \
  --frozen_graph="${FROZEN_FILE}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  "${runtime_flags[@]}" \
  "$@"
