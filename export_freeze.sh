#!/usr/bin/env bash
# Writes the inference graph, the frozen graph and the labels of the newest
# checkpoint of TRAIN_DIR, or with EXPORT=best of the one that was best on the
# validation photos, to EXPORT_DIR. The graphs take encoded photos;
# --input_type=float gives slim's float images. They also say whether they know
# the photo, by training photos near it; --known=off leaves that out.
#
# usage: [MODEL_NAME=…] [EXPORT=best] ./export_freeze.sh [flags of
#        export_inference_graph.py, --help lists them]
set -euo pipefail
program=export_inference_graph.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

checkpoint=$(checkpoint_folder EXPORT)
exec "${VENV_PYTHON}" "${program}" \
  --model_name="${MODEL_NAME}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --input_type=encoded \
  --checkpoint_path="${checkpoint}" \
  --output_file="${GRAPH_FILE}" \
  --frozen_file="${FROZEN_FILE}" \
  --label_file="${LABEL_FILE}" \
  "$@"
