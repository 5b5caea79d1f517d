#!/usr/bin/env bash
# Exports the frozen graph of ./export_freeze.sh as an ONNX model, to EXPORT_DIR,
# and compares both on the validation photos. If there is no frozen graph yet,
# or if CHECKPOINT is set, ./export_freeze.sh makes it first. A frozen graph of
# another checkpoint than the one of TRAIN_DIR that all steps use is an error.
# The first call installs the packages for ONNX.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] \
#        scripts/export_onnx.sh [flags of export_onnx.py, --help lists them]
set -euo pipefail
program=tools/export_onnx.py
uses_run=1
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --onnx --quiet

freeze_if_needed "$@"
exec "${VENV_PYTHON}" "${program}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --dataset_split_name="${EVAL_SPLIT}" \
  --frozen_file="${FROZEN_FILE}" \
  --run_name="${OUTPUT_DIR##*/}" \
  --onnx_file="${EXPORT_DIR}/my_${MODEL_NAME}.onnx" \
  "${checkpoint_flags[@]}" \
  ${RUNTIME:+--runtime="${RUNTIME}"} \
  "$@"
