#!/usr/bin/env bash
# Trains on the nodes of a Slurm job: a parameter server and a worker per node, or
# with --all_reduce only a worker, each with its cluster in TF_CONFIG. Submit it
# in the project's folder, which must be on storage that all nodes share, with the
# records and TRAIN_DIR. The output of all tasks goes to slurm-<job>.out. Ten
# minutes before its time limit the job saves a last checkpoint and is queued
# again.
#
# usage: [MODEL_NAME=…] sbatch [--nodes=4] [--gpus-per-node=8] [--time=…]
#        deploy/slurm.sh [flags of train_image_classifier.py]

#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --signal=TERM@600
#SBATCH --open-mode=append
set -euo pipefail
program=train_image_classifier.py
# Slurm runs a copy of this file, in another folder.
folder="${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
# shellcheck source=env_set.sh
source "${folder}/env_set.sh"
if [[ -z "${SLURM_JOB_NODELIST:-}" ]]; then
  echo "slurm.sh: error: submit it: sbatch deploy/slurm.sh" >&2
  exit 1
fi
"${PROJECT_DIR}/setup.sh" --quiet
set_trainer_flags "$@"
remember_run

mapfile -t nodes < <(scontrol show hostnames "${SLURM_JOB_NODELIST}")
# Other jobs may have a task on the same node.
port=$((20000 + SLURM_JOB_ID % 5000 * 2))
# Prints a JSON list of the nodes with a port.
addresses() {
  local list
  list=$(printf ", \"%s:$1\"" "${nodes[@]}")
  echo "[${list#, }]"
}
cluster="\"worker\": $(addresses "${port}")"
tasks=1  # Per node.
if [[ ! " $* " =~ [[:space:]]--?all_reduce(=(1|t|true))?[[:space:]] ]]; then
  cluster+=", \"ps\": $(addresses "$((port + 1))")"
  tasks=2
fi

status=0
# shellcheck disable=SC2016  # each task expands it
srun --label --ntasks="$((tasks * ${#nodes[@]}))" --ntasks-per-node="${tasks}" \
  bash -c '
  jobs=(worker ps)
  task="{\"type\": \"${jobs[SLURM_LOCALID]}\", \"index\": ${SLURM_NODEID}}"
  export TF_CONFIG="{\"cluster\": {$1}, \"task\": ${task}}"
  exec "${@:2}"' task "${cluster}" \
  "${VENV_PYTHON}" -u "${program}" "${flags[@]}" "$@" || status=$?
if [[ "${status}" == 143 ]]; then  # The time limit is near.
  scontrol requeue "${SLURM_JOB_ID}"
fi
exit "${status}"
