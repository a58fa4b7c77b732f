#!/usr/bin/env bash
# Creates the environment with the pinned versions, and prints its progress and duration.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
log=$venv/setup.log
started=$SECONDS

if [ -z "${PYTHON:-}" ] || ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  found=$("${PYTHON:-python3}" -V 2>&1 || true)
  echo "setup: Python 3.11 or newer is needed; found: ${found:-none}." >&2
  echo "setup: install it, or name it: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
fi

# One line per twenty packages, or one rewritten line on a terminal; the log has everything.
progress() {
  local line count=0
  while IFS= read -r line; do
    case $line in
      Collecting* | "Requirement already satisfied"*)
        count=$((count + 1))
        if [ -t 1 ]; then printf '\rsetup: %3d packages checked, %s s ' "$count" "$((SECONDS - started))"
        elif [ $((count % 20)) = 0 ]; then echo "setup: $count packages checked, $((SECONDS - started)) s"; fi ;;
      "Installing collected packages"*)
        [ -t 1 ] && echo
        echo "setup: installing (unpacking the learning libraries takes a minute)" ;;
    esac
  done
}

if [ ! -x "$venv/bin/python" ]; then
  echo "setup: creating $venv with $("$PYTHON" -V)"
  "$PYTHON" -m venv "$venv"
fi
[ -e "$venv/.setup-stamp" ] || echo "setup: the environment takes 6 GB and, on the first run, some minutes, mostly for torch with" \
  "its CUDA libraries; an index of torch's CPU builds in PIP_EXTRA_INDEX_URL makes it far smaller"

install=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off
  -c constraints.txt -e ./fincoach_events -e '.[all,dev]')
if ! "${install[@]}" </dev/null 2>&1 | tee "$log" | progress; then
  echo "setup: pip failed; the end of $log:" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
[ -t 1 ] && echo
echo "setup: done in $((SECONDS - started)) s"
