#!/usr/bin/env bash
# Shows the photos in INBOX, which visitors of the server say were classified
# wrongly, and asks about each one: accepted photos join the folder of photos
# of the run. Writes INBOX/review.html, on which you can choose instead;
# --apply=choices.csv carries out its choices. Then run ./convert_tfrecord.sh,
# ./run_train.sh and ./export_freeze.sh: the server changes to the new graph.
#
# usage: INBOX=… [RUN=…] [PHOTOS_DIR=…] ./review_inbox.sh [--apply=FILE]
set -euo pipefail
program=tools/review_inbox.py
uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" \
  --inbox="${INBOX}" \
  --dataset_dir="${DATASET_DIR}" \
  --dataset_name="${DATASET_NAME}" \
  ${PHOTOS_DIR:+--photos_dir="${PHOTOS_DIR}"} \
  "$@"
