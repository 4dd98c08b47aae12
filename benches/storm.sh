#!/bin/sh
# A reconnect storm: 5,000 clients come back over TLS at once (full handshakes, P-256) while 500 established connections echo
# once a second each. Clients, balancer and node are processes of their own on this machine.
#
#   benches/storm.sh                            the default cap
#   benches/storm.sh --max-handshakes 1000000   without one, for comparison
#   benches/storm.sh --clients 2000
#
# It prints the balancer's CPU time per handshake, when the clients were served against 1.5 x clients x CPU / cores, the round
# trips of the established ones before and during the storm (goal: p99 <= 20 ms), and who used the cores meanwhile: clients, node
# and established ones are made cheap but take from the same cores, strangers make a run worthless, and `idle` says whether anything
# waited while a core was free. The goal is also given by the cores that the balancer had left. Run it on a quiet machine. Where
# connections found the queue of the listener full they came again after a second: then `net.core.somaxconn` was the bound.
set -eu
cd "$(dirname "$0")/.."
exec cargo bench --quiet --bench storm -- "$@"
