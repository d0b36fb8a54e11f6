#!/bin/bash
# Trains for a number of minutes and stops well, leaving in OUTPUT all that the next call needs to go on:
#   train_for.sh MINUTES CONFIG OUTPUT [PREVIOUS] [further options of universeg-train]
# PREVIOUS is the folder that an earlier call left ("" for none). What is left is one archive, run.tar.part00, part01, ... of 15 MB,
# at most 8 of them:  cat OUTPUT/run.tar.part* | tar -x  gives the run's folder. A run that failed leaves what it had saved.
# Nothing needs to be installed but what universeg-train imports.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
minutes=$1 config=$2 output=$3 previous=${4:-}
shift $(( $# < 4 ? $# : 4 ))
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
run=$output/run
mkdir -p "$run"
[ -z "$previous" ] || cat "$previous"/run.tar.part* | tar -x -C "$run"
status=0
# In the foreground: otherwise the signal meets the processes that draw episodes too, and the run breaks off without a save.
timeout --foreground --signal=TERM --kill-after=60 "${minutes}m" \
    "${PYTHON:-python3}" "$root/universeg_rt/checkout.py" universeg_rt.training.run.cli "$config" --output "$run" "$@" || status=$?
[ "$status" != 124 ] || status=0
rm -f "$output"/run.tar.part*
tar -c -C "$run" . | split --bytes=15M --numeric-suffixes - "$output"/run.tar.part
parts=("$output"/run.tar.part*)
if [ ${#parts[@]} -gt 8 ]; then
    echo "train_for.sh: ${#parts[@]} parts; more than 8 files may not be kept" >&2
    status=1
else
    rm -r "$run"
fi
ls -l "$output"
exit "$status"
