#!/usr/bin/env bash
# tls_scan.sh [sslyze|testssl|all]: starts an Evenkeel with an ECDSA and an RSA certificate of an own authority and has it judged by
# sslyze (Mozilla's intermediate profile) and by testssl.sh. Prints what they find and fails on findings.
#
#   EVENKEEL   the binary; default: the release build, else the debug build
#   SSLYZE     its Python, in which the package sslyze is installed; default: python3
#   TESTSSL    default: testssl (Debian's name), else testssl.sh
set -euo pipefail
cd "$(dirname "$0")/.."
WHICH="${1:-all}"
TARGET="${CARGO_TARGET_DIR:-target}"
EVENKEEL="${EVENKEEL:-$([ -x "$TARGET/release/evenkeel" ] && echo "$TARGET/release/evenkeel" || echo "$TARGET/debug/evenkeel")}"
SSLYZE="${SSLYZE:-python3}"
TESTSSL="${TESTSSL:-$(command -v testssl || command -v testssl.sh || echo testssl)}"
SCRATCH="$(mktemp -d)"
PIDS=()
cleanup() {
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$SCRATCH"
}
trap cleanup EXIT

# What testssl.sh finds and we leave, by its id, each with its reason.
declare -A LEFT=(
  [engine_problem]="of the scanner's own OpenSSL"
  [sessionresumption_ticket]="its client may leave before the ticket comes; tests/outside/tls.rs holds resumption"
  [cert_revocation]="no authority answers for a certificate made here"
  [HSTS]="a header of the backend's"
  [security_headers]="headers of the backend's"
)

# A root, an intermediate, and under it an ECDSA and an RSA certificate of localhost.
make_chain() {
  cd "$SCRATCH"
  local ec="-pkeyopt ec_paramgen_curve:prime256v1"
  # shellcheck disable=SC2086
  {
    openssl req -x509 -newkey ec $ec -nodes -days 300 -subj "/CN=Scan Root" -keyout root.key -out root.pem \
      -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    sign "/CN=Scan Intermediate" middle root \
      "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign" ec $ec
    local leaf="basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth"
    sign "/CN=localhost" ecdsa middle "$leaf\nkeyUsage=critical,digitalSignature" ec $ec
    sign "/CN=localhost" rsa middle "$leaf\nkeyUsage=critical,digitalSignature,keyEncipherment" rsa:2048
  } 2>/dev/null
  cat middle.pem >>ecdsa.pem
  cat middle.pem >>rsa.pem
  cd - >/dev/null
}

# sign SUBJECT STEM ISSUER EXTENSIONS KEY...
sign() {
  local subject="$1" stem="$2" issuer="$3" extensions="$4"
  shift 4
  openssl req -new -newkey "$@" -nodes -subj "$subject" -keyout "$stem.key" -out "$stem.csr"
  printf '%b\n' "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n$extensions" >"$stem.ext"
  openssl x509 -req -in "$stem.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -CAcreateserial -days 90 -sha256 \
    -extfile "$stem.ext" -out "$stem.pem"
}

# A backend that speaks HTTP, so that the scanners get answers, and the balancer before it.
start() {
  mkdir "$SCRATCH/site"
  echo hello >"$SCRATCH/site/index.html"
  python3 -u -m http.server --bind 127.0.0.1 --directory "$SCRATCH/site" 0 >"$SCRATCH/node.log" 2>&1 &
  PIDS+=($!)
  local node
  node="$(wait_for "$SCRATCH/node.log" 's/.* port \([0-9]*\) .*/\1/p')"
  cat >"$SCRATCH/balancer.toml" <<TOML
[global]
log_format = "json"
[[listener]]
name = "scan"
bind = "127.0.0.1:0"
protocol = "websocket"
pool = "node"
[listener.tls]
certificates = [
  { cert = "ecdsa.pem", key = "ecdsa.key", default = true },
  { cert = "rsa.pem", key = "rsa.key" },
]
[pool.node]
backend = [{ address = "127.0.0.1:$node" }]
TOML
  "$EVENKEEL" run --config "$SCRATCH/balancer.toml" >/dev/null 2>"$SCRATCH/balancer.log" &
  PIDS+=($!)
  PORT="$(wait_for "$SCRATCH/balancer.log" 's/.*"address":"127.0.0.1:\([0-9]*\)".*/\1/p')"
}

# wait_for FILE EXPRESSION: what sed makes of the first line that fits, at most ten seconds.
wait_for() {
  local found
  for _ in $(seq 100); do
    found="$(sed -n "$2" "$1" 2>/dev/null | head -n 1)"
    if [ -n "$found" ]; then echo "$found" && return; fi
    sleep 0.1
  done
  echo "nothing in $1:" >&2
  cat "$1" >&2
  return 1
}

# Its exit code says whether the server is as Mozilla wants it.
scan_sslyze() {
  echo "=== sslyze, Mozilla's intermediate profile"
  "$SSLYZE" -m sslyze --mozilla_config=intermediate --certinfo_ca_file="$SCRATCH/root.pem" "localhost:$PORT"
}

scan_testssl() {
  echo "=== testssl.sh"
  "$TESTSSL" --quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 --add-ca "$SCRATCH/root.pem" \
    --jsonfile "$SCRATCH/testssl.json" "localhost:$PORT" </dev/null || true
  local findings=0 id severity finding
  while IFS=$'\t' read -r id severity finding; do
    if [ -n "${LEFT[${id%% *}]:-}" ]; then
      echo "left: $id ($severity): $finding: ${LEFT[${id%% *}]}"
    else
      echo "finding: $id ($severity): $finding"
      findings=1
    fi
  done < <(python3 - "$SCRATCH/testssl.json" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
assert len(found) > 50, "testssl.sh has told too little"
for one in found:
    if one["severity"] not in ("OK", "INFO", "DEBUG"):
        print(one["id"], one["severity"], one["finding"].replace("\t", " "), sep="\t")
PYTHON
)
  return "$findings"
}

make_chain
start
status=0
case "$WHICH" in
  sslyze) scan_sslyze || status=1 ;;
  testssl) scan_testssl || status=1 ;;
  all)
    scan_sslyze || status=1
    scan_testssl || status=1
    ;;
  *) echo "tls_scan.sh [sslyze|testssl|all]" >&2 && exit 2 ;;
esac
[ "$status" = 0 ] && echo "=== nothing found" || echo "=== FINDINGS"
exit "$status"
