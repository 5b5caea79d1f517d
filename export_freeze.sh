#!/usr/bin/env bash
# Writes the inference graph, the frozen graph and the labels of the best
# checkpoint of TRAIN_DIR to EXPORT_DIR; of the newest if training keeps no best
# one, or with CHECKPOINT=newest. The graphs take encoded photos;
# --input_type=float makes them take float images, as slim's do. They also
# detect out-of-distribution photos by comparison with training photos;
# --known=off omits that.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] ./export_freeze.sh \
#        [flags of export_inference_graph.py, --help lists them]
set -euo pipefail
program=export_inference_graph.py
uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

check_network
exec "${VENV_PYTHON}" "${program}" \
  --model_name="${MODEL_NAME}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --input_type=encoded \
  --checkpoint_path="${TRAIN_DIR}" \
  "${checkpoint_flags[@]}" \
  --output_file="${GRAPH_FILE}" \
  --frozen_file="${FROZEN_FILE}" \
  --label_file="${LABEL_FILE}" \
  "${runtime_flags[@]}" \
  "$@"
