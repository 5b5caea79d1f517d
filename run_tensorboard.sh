#!/usr/bin/env bash
# Shows the curves of training and evaluation on port 6006 of this machine;
# --bind_all lets others see them too.
#
# usage: [MODEL_NAME=…] [TENSORBOARD_PORT=6006] ./run_tensorboard.sh [flags of
#        tensorboard, --help lists them]
set -euo pipefail
program=tools/tensorboard_quietly.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

# A folder of links names the two curves, wherever the folders are. TensorBoard
# has flags for this; 1.15 and 2 call them differently.
logs="${OUTPUT_DIR}/tensorboard"
mkdir -p "${logs}"
ln -sfn "$(realpath -m "${TRAIN_DIR}")" "${logs}/train"
ln -sfn "$(realpath -m "${EVAL_DIR}")" "${logs}/eval"

PYTHONPATH="${PROJECT_DIR}" exec "${VENV_PYTHON}" "${program}" \
  --logdir="${logs}" \
  --port="${TENSORBOARD_PORT}" \
  "$@"
