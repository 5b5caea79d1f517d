#!/usr/bin/env bash
# Runs the whole chain: sets up .venv, converts photos, trains, evaluates,
# exports, freezes, and serves a page on port 5001. Without arguments it draws
# sample photos, and a small network learns them in minutes. Can be interrupted
# and run again: training resumes where it was. ENGINE=tf2 runs everything on
# TensorFlow 2, in .venv-tf2.
#
# usage: [ENGINE=tf2] ./quickstart.sh [--photos DIR [--network NAME]
#        [--checkpoint FILE | --from_scratch]] [--no_serve] [--verbose]
#   --photos DIR       your own photos, DIR/<class>/* or ready-made splits
#                      DIR/train/<class>/* and so on
#   --network NAME     a network of tools.list_models (default: inception_v4, or
#                      the one that the checkpoint fits)
#   --checkpoint FILE  published checkpoint to start from (default: the one in
#                      checkpoints/; if there is none, it is downloaded)
#   --from_scratch     start without a checkpoint, which takes days
#   --no_serve         end after the page has answered one upload
#   --verbose          show all output of the steps; else each has a line of
#                      progress and its result, and the output is in
#                      output/quickstart/quickstart.log
# Records are written to output/quickstart/data, the run to
# output/DATASET_NETWORK, with a number (-2) if the photos or the checkpoint
# differ from those of the run that is there. The variables of env_set.sh can be
# overridden, as in MODEL_NAME=mobilenet_v1 ./quickstart.sh --photos DIR
set -euo pipefail
# shellcheck source=scripts/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/help.sh"

photos=
checkpoint=
network=
from_scratch=
serve=1
verbose=
fail() { echo "quickstart.sh: error: $*" >&2; exit 1; }

# File descriptors of the user's stdout and stderr.
screen=1
error_screen=2
# Prints a text, also on the screen if stdout is the log.
say() {
  echo "$*"
  [[ -n "${verbose}" ]] || echo "$*" >&"${screen}"
}

# Begins a step; `times` has the seconds of those before.
step_name=
times=
log_start=1
end_step() {
  [[ -z "${step_name}" ]] ||
    times+="${times:+, }${step_name} $(($(date +%s) - step_start))"
}
step() {
  end_step
  step_name=${1%%:*}
  step_start=$(date +%s)
  say $'\n'"== $*"
  [[ -n "${verbose}" ]] || log_start=$(($(wc -c <"${log}") + 1))
}

step_output() { tail -c "+${log_start}" "${log}"; }

# Shows the result of the step on the screen: of its output, the last line that
# matches each of the patterns, and the first warnings.
show_result() {
  local pattern
  [[ -z "${verbose}" ]] || return 0
  {
    for pattern in "$@"; do
      step_output | grep -E "${pattern}" | tail -n 1 || true
    done
    step_output | grep -E '^WARNING|: (warning|note): ' | sort -u |
      head -n 3 || true
  } | sed 's/^INFO:tensorflow://' >&"${screen}"
}

# Ends the server; if a step has failed, shows the end of its output.
on_exit() {
  local status=$?
  if [[ -n "${server:-}" ]]; then
    kill "${server}" 2>/dev/null || true
    wait "${server}" 2>/dev/null || true
  fi
  if [[ -n "${serving:-}${verbose}" || "${status}" == 0 ]]; then
    return
  fi
  if [[ "${status}" == 130 ]]; then
    echo 'quickstart.sh: interrupted; the same command continues' \
      >&"${error_screen}"
    return
  fi
  {
    step_output | tail -n 15
    echo "quickstart.sh: error: ${step_name} ended with status ${status}; its" \
      "output is in $(relative "${log}")"
  } >&"${error_screen}"
}

while [[ $# -gt 0 ]]; do
  case "$1" in
    --photos=* | --checkpoint=* | --network=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --photos) photos=${2:-}; [[ -n "${photos}" ]] || fail '--photos needs a folder'
              shift ;;
    --checkpoint) checkpoint=${2:-}
                  [[ -n "${checkpoint}" ]] || fail '--checkpoint needs a file'
                  shift ;;
    --network) network=${2:-}; [[ -n "${network}" ]] || fail '--network needs a name'
               shift ;;
    --from_scratch) from_scratch=1 ;;
    --no_serve) serve=0 ;;
    --verbose) verbose=1 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done

# Check the arguments before anything that takes time.
if [[ -n "${photos}" ]]; then
  [[ -d "${photos}" ]] || fail "--photos ${photos}: no such folder"
  photos=$(cd "${photos}" && pwd)
fi
if [[ -n "${checkpoint}" ]]; then
  [[ -n "${photos}" ]] || fail '--checkpoint needs --photos'
  checkpoint=${checkpoint%.index}
  [[ -f "${checkpoint}" || -f "${checkpoint}.index" ]] ||
    fail "--checkpoint ${checkpoint}: no such file, nor ${checkpoint}.index"
  checkpoint="$(cd "$(dirname "${checkpoint}")" && pwd)/${checkpoint##*/}"
fi
for option in network from_scratch; do
  [[ -z "${!option}" || -n "${photos}" ]] || fail "--${option} needs --photos"
done
[[ -z "${checkpoint}" || -z "${from_scratch}" ]] ||
  fail '--checkpoint and --from_scratch exclude each other'
[[ -z "${network}" ]] || export MODEL_NAME=${network}
port=${SERVER_PORT:-5001}
if (exec 3<>"/dev/tcp/127.0.0.1/${port}") 2>/dev/null; then
  fail "port ${port} is in use; SERVER_PORT=5002 ./quickstart.sh uses another"
fi

source "${PROJECT_DIR}/scripts/engine.sh"
# Check the variables before anything that takes time, too.
bash -euc 'source "$1/env_set.sh"; check_network' quickstart.sh "${PROJECT_DIR}"

export RUNS_DIR="${RUNS_DIR:-${PROJECT_DIR}/output}"
base="${RUNS_DIR}/quickstart"
mkdir -p "${base}"
trap on_exit EXIT
trap 'exit 130' INT
if [[ -z "${verbose}" ]]; then
  log="${base}/quickstart.log"
  : >"${log}"
  exec {screen}>&1 {error_screen}>&2 >>"${log}" 2>&1
  export PROGRESS_FD=${error_screen}  # For common/progress.py and setup.sh.
  say "All output of the steps is written to $(relative "${log}")"
fi

step "Setting up ${VENV##*/}: ${ENGINE_NAME}"
"${PROJECT_DIR}/setup.sh" ${verbose:+--verbose}
show_result '^Ready'

# Runs a module of the project, given as a path.
run_module() {
  "${VENV_PYTHON}" "${PROJECT_DIR}/$1" "${@:2}"
}

export DATASET_DIR="${DATASET_DIR:-${base}/data}"
export PHOTOS_DIR=  # It may be another data set's; here --photos gives it.
train_flags=()

# Sets CHECKPOINT_PATH to a checkpoint and MODEL_NAME to a network that it fits.
use_checkpoint() {
  if [[ -z "${MODEL_NAME:-}" ]]; then
    MODEL_NAME=$(run_module tools/inspect_checkpoint.py --find_network \
      --checkpoint_path="$1") || exit 1
    say "$(relative "$1") fits ${MODEL_NAME}"
  else
    local text
    text=$(run_module tools/inspect_checkpoint.py --checkpoint_path="$1" \
      --model_name="${MODEL_NAME}" 2>&1) || {
        text=${text##*$'\n'}
        fail "$1: ${text%: give --model_name*}"
      }
  fi
  export MODEL_NAME CHECKPOINT_PATH=$1
}

# Finds a checkpoint to start from: that of the network in checkpoints/, or its
# download; if no network was given, also another one in checkpoints/.
find_checkpoint() {
  local wanted=${MODEL_NAME:-inception_v4} folder="${PROJECT_DIR}/checkpoints" file
  if ! compgen -G "${folder}/${wanted}.ckpt*" >/dev/null; then
    step "download_checkpoint.sh: the published checkpoint of ${wanted}"
    "${PROJECT_DIR}/scripts/download_checkpoint.sh" "${wanted}" || true
    show_result ' from http|error: '
  fi
  if compgen -G "${folder}/${wanted}.ckpt*" >/dev/null; then
    export MODEL_NAME=${wanted} CHECKPOINT_PATH="${folder}/${wanted}.ckpt"
    return
  fi
  for file in "${folder}"/*.ckpt "${folder}"/*.ckpt.index; do
    if [[ -z "${MODEL_NAME:-}" && -f "${file}" ]]; then
      use_checkpoint "${file%.index}"
      return
    fi
  done
  fail "there is no checkpoint to start from: give --checkpoint FILE, or" \
    "--from_scratch to train ${wanted} without one, which takes days"
}

if [[ -n "${photos}" ]]; then
  if [[ -n "${from_scratch}" ]]; then
    export CHECKPOINT_PATH=
  elif [[ -n "${checkpoint}" ]]; then
    use_checkpoint "${checkpoint}"
  elif [[ -z "${CHECKPOINT_PATH+set}" ]]; then
    find_checkpoint
  fi
  export MODEL_NAME="${MODEL_NAME:-inception_v4}"
  export DATASET_NAME="${DATASET_NAME:-$(basename "${photos}")}"
  # Training from a checkpoint ends by itself.
  if [[ -z "${CHECKPOINT_PATH}" ]]; then
    export MAX_NUMBER_OF_STEPS="${MAX_NUMBER_OF_STEPS:-200}"
    say "No checkpoint: ${MODEL_NAME} starts from scratch and will have" \
      "learned little after ${MAX_NUMBER_OF_STEPS} steps"
  fi
  folder="${DATASET_DIR}/${DATASET_NAME}"
  if [[ ! "${photos}" -ef "${folder}" ]]; then
    [[ ! -e "${folder}" || -L "${folder}" ]] ||
      fail "${folder} exists and is not ${photos}; give another DATASET_NAME"
    mkdir -p "${DATASET_DIR}"
    ln -sfn "${photos}" "${folder}"
  fi
else
  export MODEL_NAME="${MODEL_NAME:-mobilenet_v1_025}"
  export DATASET_NAME="${DATASET_NAME:-drawn_flowers}"
  export MAX_NUMBER_OF_STEPS="${MAX_NUMBER_OF_STEPS:-800}"
  # From scratch, with full decay within these steps.
  export LEARNING_RATE="${LEARNING_RATE:-0.01}"
  export CHECKPOINT_PATH=
  # Batch norm's moving averages must converge within these few steps.
  train_flags=(--train_image_size=64 --batch_norm_decay=0.95)
  step 'Drawing sample photos: five kinds of flowers'
  folder="${DATASET_DIR}/${DATASET_NAME}"
  [[ ! -e "${folder}" || -e "${folder}/.drawn" ]] ||
    fail "${folder} contains other photos; --photos ${folder} uses them"
  mkdir -p "${folder}"
  touch "${folder}/.drawn"
  run_module datasets/conversion/draw_flowers.py --per_class=120 --output_dir="${folder}"
  show_result '^drew'
fi

step 'convert_tfrecord.sh: photos to TFRecord'
"${PROJECT_DIR}/convert_tfrecord.sh"
show_result '^photos ' '^all ' '^skipped files' '^same photo'

# Other photos or another checkpoint make another run.
manifest="${DATASET_DIR}/${DATASET_NAME}.json"
source "${PROJECT_DIR}/scripts/find_run.sh"
if [[ -z "${OUTPUT_DIR:-}" ]]; then
  origin=$({ cat "${manifest}"; echo "${CHECKPOINT_PATH-}"; } | cksum)
  name="${DATASET_NAME}_${MODEL_NAME}"
  # As it was named before runs had numbers.
  OUTPUT_DIR="${base}/${name}_${origin%% *}"
  [[ -d "${OUTPUT_DIR}" ]] ||
    choose_output_dir "${RUNS_DIR}/${RUN:-${name}}" "${origin}"
fi
export OUTPUT_DIR
unset RUN
export LOG_FILE="${LOG_FILE:-${base}/output.log}"
export SERVER_HOST="${SERVER_HOST:-127.0.0.1}"
source "${PROJECT_DIR}/env_set.sh"

step "run_train.sh: ${MODEL_NAME}${MAX_NUMBER_OF_STEPS:+, ${MAX_NUMBER_OF_STEPS} steps}"
(
  trap 'say "Stopping; training saves a last checkpoint"' INT
  train_to_the_end "${train_flags[@]}"
)
show_result 'global step ' 'Validation accuracy|nothing to do'

step 'run_eval.sh: accuracy on the validation photos'
EVAL_INTERVAL_SECS='' "${PROJECT_DIR}/run_eval.sh"
show_result '^eval/Accuracy' '^[0-9]+ photos, '

step 'report.sh: the report'
"${PROJECT_DIR}/report.sh"
show_result '^Wrote '

step 'export_freeze.sh: frozen graph and labels'
"${PROJECT_DIR}/export_freeze.sh"
show_result '^Wrote .*: frozen graph' 'compared with float32|and float32 on'

step "server.sh: the page on port ${SERVER_PORT}"
server_log="${base}/server.log"
: >"${server_log}"  # It is read before the server starts.
"${PROJECT_DIR}/server.sh" >>"${server_log}" 2>&1 &
server=$!
until grep -q 'listening on port' "${server_log}"; do
  kill -0 "${server}" 2>/dev/null || { cat "${server_log}" >&2; exit 1; }
  sleep 0.2
done
photo=$(run_module tools/pick_photo.py --manifest="${manifest}")
# Of the page, the answer and the scores are shown.
answer=$(run_module tools/upload_photo.py --photo="${photo}" \
  --url="http://127.0.0.1:${SERVER_PORT}/" | sed '/^Another one$/,$d')
echo "${answer}"
[[ -n "${verbose}" ]] ||
  sed -n 'N;s/\n/: /p;q' <<<"${answer}" >&"${screen}"

end_step
summary=$(run_module tools/describe_run.py --eval_dir="${EVAL_DIR}" \
  --train_dir="${TRAIN_DIR}" --manifest="${manifest}")
say "
${summary}
Seconds: ${times}.

Report: $(relative "${TRAIN_DIR}/report.html")
Frozen graph and labels: $(relative "${EXPORT_DIR}")
Next: ./server.sh serves this run again, ./classify.sh PHOTO classifies without a
server, ./check_labels.sh finds wrong labels, ./runs.sh lists the runs."
if [[ "${serve}" == 1 ]]; then
  command=$(printf '%q ' "$(relative "${VENV_PYTHON}")" \
    "$(relative "${PROJECT_DIR}/tools/upload_photo.py")" \
    --photo="$(relative "${photo}")" \
    --url="http://127.0.0.1:${SERVER_PORT}/")
  say "Serving on http://127.0.0.1:${SERVER_PORT}/ until Ctrl-C. Try it with a browser, or with
  ${command% }"
  serving=1
  wait "${server}"
fi
