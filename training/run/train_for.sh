#!/bin/bash
# Trains for a number of minutes and stops well, leaving in OUTPUT all that the next call needs to go on:
#   train_for.sh MINUTES CONFIG OUTPUT [PREVIOUS] [further options of universeg-train]
# PREVIOUS is the folder that an earlier call left ("" for none). What is left is one archive, run.tar.part00, part01, ... of 15 MB,
# at most 8 of them:  cat OUTPUT/run.tar.part* | tar -x  gives the run's folder. A run that failed leaves what it had saved.
# With FINISH_MINUTES=N in the environment the last N of the minutes bring the learning rate to zero (finished.safetensors): over
# as many samples as the minutes before say, less a fifth. Killed, the call leaves OUTPUT/run, and the same call goes on from it.
# A SIGTERM to all its processes ends the training, which saves, and what it left is packed.
# Nothing needs to be installed but what universeg-train imports.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
minutes=$1 config=$2 output=$3 previous=${4:-} finish=${FINISH_MINUTES:-0}
shift $(( $# < 4 ? $# : 4 ))
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
run=$output/run
mkdir -p "$run"
exec 9>"$output/lock"  # held by the processes below too: a run whose script was killed is not run twice
flock -n 9 || { echo "train_for.sh: $run is still being trained; wait for it, or end its process" >&2; exit 1; }
[ -z "$previous" ] || [ -e "$run/state.pt" ] || cat "$previous"/run.tar.part* | tar -x -C "$run"
status=0 stopped=
trap stopped=1 TERM

for_minutes() {  # MINUTES [options]
    local limit=$1; shift
    # In the foreground: otherwise the signal meets the processes that draw episodes too, and the run breaks off without a save.
    timeout --foreground --signal=TERM --kill-after=60 "${limit}m" \
        "${PYTHON:-python3}" "$root/universeg_rt/checkout.py" universeg_rt.training.run.cli "$config" --output "$run" "$@" || status=$?
    [ "$status" != 124 ] || status=0
}
samples() { [ -e "$run/log.csv" ] && tail -n 1 "$run/log.csv" | cut -d, -f2 | grep -E '^[0-9]+$' || echo 0; }

before=$(samples) began=$(date +%s)
for_minutes "$(awk "BEGIN {print $minutes - $finish}")" "$@"
# Starting takes its time in both parts: until the run has read its data and writes its config.
starting=$(( $(stat -c %Y "$run/config.yaml" 2>/dev/null || echo "$began") - began + 1 ))
count=$(awk "BEGIN {print int(($(samples) - $before) * ($finish * 60 - $starting) / (($minutes - $finish) * 60 - $starting) * 0.8)}")
[ "$status$stopped" != 0 ] || [ "$count" -lt 1 ] || for_minutes "$finish" "$@" --finish "$count"
trap '' TERM
rm -f "$output"/run.tar.part*
tar -c -C "$run" . | split --bytes=15M --numeric-suffixes - "$output"/run.tar.part
parts=("$output"/run.tar.part*)
if [ ${#parts[@]} -gt 8 ]; then
    echo "train_for.sh: ${#parts[@]} parts; more than 8 files may not be kept" >&2
    status=1
else
    rm -r "$run"
fi
rm -f "$output/lock"
ls -l "$output"
exit "$status"
