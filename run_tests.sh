#!/usr/bin/env bash
# Sets .venv up and runs the linters and the tests.
#
# usage: ./run_tests.sh [--full] [flags of pytest]
#   --full  also the slow tiers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ "${1:-}" == --help || "${1:-}" == -h ]]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 0
fi
./setup.sh --dev --quiet

.venv/bin/ruff check .
mapfile -t scripts < <(find . -name '*.sh' -not -path './.venv*' | sort)
.venv/bin/shellcheck --severity=style --external-sources \
  "${scripts[@]}" .ci/run
# -rs: the output ends with what was skipped, and why.
exec .venv/bin/python -m pytest -rs --durations=10 tests "$@"
