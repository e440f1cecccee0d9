#!/bin/sh
# Limits what leaves this network namespace. `shape 20mbit` holds that rate; `shape 20mbit flaky 20` gives it for 20
# seconds and next to nothing for the next 20, for ever.
set -eu
rate=$1
steady() { tc qdisc replace dev eth0 root tbf rate "$1" burst 32kbit latency 400ms; }
trap 'exit 0' TERM INT
steady "$rate"
echo "uplink: $rate${2:+, $2 every $3 s}"
while :; do
    sleep "${3:-3600}" &
    wait $!
    [ "${2:-}" = flaky ] || continue
    steady 8kbit
    sleep "$3" &
    wait $!
    steady "$rate"
done
