#!/bin/sh
# A reconnect storm: 5,000 clients come back over TLS at once (full handshakes, P-256) while 500 established connections echo
# once a second each. Clients, balancer and node are processes of their own on this machine.
#
#   benches/storm.sh                            the default cap
#   benches/storm.sh --max-handshakes 1000000   without one, for comparison
#   benches/storm.sh --clients 2000
#
# It prints the balancer's CPU time per handshake, when the clients were served against 1.5 x clients x CPU / cores, the round
# trips of the established ones before and during the storm (goal: p99 <= 20 ms), and what else the machine did meanwhile: the
# clients take from the same cores, so the goal is also given by the cores that they have left. Run it on a quiet machine.
set -eu
cd "$(dirname "$0")/.."
exec cargo bench --quiet --bench storm -- "$@"
