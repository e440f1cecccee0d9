#!/bin/sh
# Limits the uplink of this network namespace. `shape 20mbit` keeps that rate. `shape 20mbit flaky 20` alternates for ever
# between that rate for 20 seconds and 8 kbit/s for 20 seconds.
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
