#!/bin/sh
# A reconnect storm: 5,000 clients come back over TLS at once (full handshakes, P-256), or as plain WebSockets, while 500 established
# connections of that kind echo once a second each. Clients, balancer and node are processes of their own; the balancer has one core of this machine for itself,
# all else has another one.
#
#   benches/storm.sh                            the default cap
#   benches/storm.sh --max-handshakes 1000000   without one, for comparison
#   benches/storm.sh --clients 2000
#   benches/storm.sh --websocket                plain WebSockets instead of TLS
#   benches/storm.sh --shared                   all of them on all cores
#
# It prints the balancer's CPU time per handshake, before the storm and in it, when the clients were served against 1.5 (plain
# WebSockets: 1.2) x clients x that CPU / the balancer's cores, the round trips of the established ones before and during the storm (goal: p99 <= 20 ms), and who used
# the cores meanwhile. With --shared clients, node and established ones take from the balancer's cores: the goal then says more of them
# than of it. Strangers make a run worthless: run it on a quiet machine. Where connections found the queue of the listener full they
# came again after a second: then `net.core.somaxconn` was the bound.
set -eu
cd "$(dirname "$0")/.."
exec cargo bench --quiet --bench storm -- "$@"
