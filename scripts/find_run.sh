#!/usr/bin/env bash
# Functions that choose the run a script works with; sourced by env_set.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

# Sets `facts` to what tools/list_runs.py prints about a run: RUN or the current
# one; empty if there is none. Exits with status 1 if a script that uses a run
# gets the name of none; in front of ./run_train.sh a new name starts a new run.
ask_for_run() {
  local python=${VENV_PYTHON} text options=(--print_for_shell="${RUN}")
  [[ -n "${uses_run:-}" ]] || options+=(--may_be_new)
  [[ -x "${python}" ]] || python=$(command -v python3 || true)
  facts=()
  if [[ -n "${python}" ]]; then
    text=$(SCRIPT_NAME="${0##*/}" PYTHONPATH="${PROJECT_DIR}" "${python}" \
      "${PROJECT_DIR}/tools/list_runs.py" --runs_dir="${RUNS_DIR}" \
      "${options[@]}") || exit 1
    mapfile -t facts <<<"${text}"
  fi
}

# Sets a variable that is not set or empty.
set_default() {
  [[ -n "${!1:-}" ]] || printf -v "$1" %s "$2"
}

# With RUN=NAME chooses that run, else the current run (see ./runs.sh) if the
# script has set `uses_run` and no variable names a data set, a network or a
# folder. Sets the variables of that run that are not set, and says on stderr
# which run it is.
choose_run() {
  local facts
  if [[ -z "${RUN}" ]] &&
    [[ -z "${uses_run:-}" || ! -s "${RUNS_DIR}/runs.tsv" ||
       -n "${MODEL_NAME:-}${DATASET_NAME:-}${OUTPUT_DIR:-}${TRAIN_DIR:-}" ]]; then
    return
  fi
  ask_for_run
  [[ ${#facts[@]} -ge 10 ]] || return 0
  export RUN="${facts[0]}"  # For the scripts that this one starts.
  set_default MODEL_NAME "${facts[2]}"
  set_default DATASET_NAME "${facts[3]}"
  # These may be gone, after the project was moved for example.
  [[ ! -d "${facts[4]}" ]] || set_default DATASET_DIR "${facts[4]}"
  # Training continues from its own checkpoint; this is where it began.
  if [[ -z "${facts[5]}" || -e "${facts[5]}" || -e "${facts[5]}.index" ]]; then
    : "${CHECKPOINT_PATH=${facts[5]}}"
  fi
  if [[ -z "${OUTPUT_DIR:-}" ]]; then
    OUTPUT_DIR=${facts[6]}
    set_default TRAIN_DIR "${facts[7]}"
    set_default EVAL_DIR "${facts[8]}"
    set_default EXPORT_DIR "${facts[9]}"
  fi
  [[ ! -e "${facts[10]:-}" ]] || set_default LOG_FILE "${facts[10]}"
  echo "${0##*/}: run ${RUN}: ${facts[1]}" >&2
}

# Sets OUTPUT_DIR to a folder for a run from this origin, a line of text: the
# given folder, with a number (-2) if there is a run from another origin.
choose_output_dir() {
  local number=1
  OUTPUT_DIR=$1
  while [[ -e "${OUTPUT_DIR}" &&
           "$(cat "${OUTPUT_DIR}/origin" 2>/dev/null)" != "$2" ]]; do
    number=$((number + 1))
    OUTPUT_DIR="$1-${number}"
  done
  mkdir -p "${OUTPUT_DIR}"
  echo "$2" >"${OUTPUT_DIR}/origin"
}

# Adds the run of TRAIN_DIR to the history, whose last line is the current run.
# Training has begun by then, so it continues if that is not possible.
remember_run() {
  local folders=() folder top line
  top=$(realpath -ms -- "${RUNS_DIR}")
  for folder in "${TRAIN_DIR}" "${EVAL_DIR}" "${EXPORT_DIR}" "${LOG_FILE}"; do
    folder=$(realpath -ms -- "${folder}")
    folders+=("${folder#"${top}/"}")
  done
  line=$(printf '\t%s' "${folders[@]}")
  if [[ "${line}" == *$'\n'* || "${line//[!$'\t']}" != $'\t\t\t\t' ]] || ! {
    mkdir -p "${top}" &&
      (flock 9 && echo "${line}" >&9) 9>>"${top}/runs.tsv"
    } 2>/dev/null; then
    echo "${0##*/}: note: cannot write $(relative "${top}/runs.tsv"), so this does not become" \
      "the current run" >&2
  fi
}
