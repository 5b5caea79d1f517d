#!/usr/bin/env bash
# Sets .venv up and runs the linters and the tests; with ENGINE=tf2 on
# TensorFlow 2, in .venv-tf2.
#
# usage: [ENGINE=tf2] ./run_tests.sh [--full] [flags of pytest]
#   --full      also the slow tiers
#   --by_turns  with --full: half of the slow tiers on each engine, as in CI
#   -n0         in one process, for a debugger
# Unlike in all other scripts, relative paths are relative to the project.
set -euo pipefail
# shellcheck source=scripts/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/help.sh"
cd "${PROJECT_DIR}"
source scripts/engine.sh
./setup.sh --dev --quiet

"${VENV}/bin/ruff" check .
"${VENV}/bin/lint-imports" --no-cache
"${VENV_PYTHON}" -m mypy common datasets deployment downloads evaluation nets \
  ood preprocessing runs runtime serving tools training
mapfile -t scripts < <(find . -name '*.sh' -not -path './.venv*' | sort
  find benchmarks -type f -not -name '*.*' | sort)
"${VENV}/bin/shellcheck" --severity=style --external-sources \
  "${scripts[@]}" .ci/run
# -rs: the output ends with what was skipped, and why. One process a core, a file
# of tests at a time: the tests of a file share what is slow to build.
exec "${VENV_PYTHON}" -m pytest -rs --durations=10 \
  --numprocesses=logical --maxprocesses=4 --dist=loadfile tests "$@"
