#!/bin/bash
# Trains for a number of minutes and stops well, leaving in OUTPUT all that the next call needs to go on:
#   train_for.sh MINUTES CONFIG OUTPUT [PREVIOUS] [further options of universeg-train]
# PREVIOUS is the folder that an earlier call left ("" for none). Big files travel in parts of 15 MB beside the weights.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
minutes=$1 config=$2 output=$3 previous=${4:-}
shift $(( $# < 4 ? $# : 4 ))
mkdir -p "$output"
if [ -n "$previous" ]; then
    cp "$previous"/*.csv "$previous"/*.safetensors "$output"/ 2>/dev/null || true
    cat "$previous"/state.part* > "$output"/state.pt
fi
status=0
timeout --signal=TERM --kill-after=60 "${minutes}m" "${PYTHON:-python3}" -m universeg_rt.training.cli "$config" --output "$output" "$@" || status=$?
[ "$status" = 124 ] || [ "$status" = 0 ] || exit "$status"
rm -f "$output"/state.part*
split --bytes=15M --numeric-suffixes "$output"/state.pt "$output"/state.part
rm "$output"/state.pt
ls -l "$output"
