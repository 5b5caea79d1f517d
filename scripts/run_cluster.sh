#!/usr/bin/env bash
# Trains with several processes, on this machine or on several, and exits when
# they end: parameter servers store the variables (with --all_reduce there are
# none), workers train on photos, each on a share of the records. The same command
# is run on each machine; it starts the tasks whose hosts in the lists are this
# machine. TRAIN_DIR belongs to the chief, the first worker; on other machines it
# is only read, if it exists.
# Without hosts: NUM_PS and NUM_WORKERS processes on this machine.
# Each task has a log in LOG_DIR; the chief's is shown. Ctrl-C, SIGTERM and
# ./stop_train.sh (on the chief's machine) save a last checkpoint and end all
# tasks. TRAINABLE_SCOPES, CHECKPOINT_PATH etc. are as for ./run_train.sh.
#
# usage: [MODEL_NAME=…] [NUM_PS=1 NUM_WORKERS=2] scripts/run_cluster.sh
#        [--ps_hosts=a:2222 --worker_hosts=a:2223,b:2223 | --hosts=FILE]
#        [--sync_replicas | --all_reduce] [flags of train_image_classifier.py]
set -euo pipefail
program=tools/run_cluster.py
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

set_trainer_flags "$@"
flags+=(--task_logs="${LOG_DIR:-${OUTPUT_DIR}/logs}")
if [[ -n "${NUM_PS:-}" ]]; then
  flags+=(--num_ps="${NUM_PS}")
fi
if [[ -n "${NUM_WORKERS:-}" ]]; then
  flags+=(--num_workers="${NUM_WORKERS}")
fi

remember_run
# Not nohup: it runs until training ends, so that a supervisor, a terminal or a
# job queue can control it.
exec "${VENV_PYTHON}" -u "${program}" "${flags[@]}" "$@"
