#!/usr/bin/env bash
# Lists the training runs: name, data set, network, photos trained on, accuracy
# with its interval, date, size on disk, folder. * marks the current run, which
# scripts use if no variable chooses another: the one whose training was started
# last. RUN=NAME in front of a script chooses another one.
#
# usage: ./runs.sh [--use NAME | --rename NAME NEW | --remove NAME [--yes] |
#        --compare A B [--output_file=page.html]]
set -euo pipefail
program=tools/list_runs.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

PYTHONPATH="${PROJECT_DIR}" exec "${VENV_PYTHON}" "${program}" \
  --runs_dir="${RUNS_DIR}" "$@"
