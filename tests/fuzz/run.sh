#!/usr/bin/env bash
# run.sh [TARGET|all] [SECONDS]: fuzzes one target or each in turn, on stable Rust; needs a C++ compiler. The corpus stays
# in target/fuzz/corpus. A crash is an exit code other than 0, and its input is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
FOLDER="$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")"
HOST="$(rustc -vV | sed -n 's/^host: //p')"
TARGETS="$(sed -n '/^\[\[bin\]\]/,$s/^name = "\(.*\)"/\1/p' tests/fuzz/Cargo.toml)"
WANTED="${1:-all}"
TIME="${2:-10}"
[ "$WANTED" = all ] || TARGETS="$WANTED"

# The product's own versions of what both use.
cp Cargo.lock tests/fuzz/Cargo.lock
# With a named target, build scripts and macros are not instrumented.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1" \
  cargo build --release --manifest-path tests/fuzz/Cargo.toml --target "$HOST" --target-dir "$FOLDER"

status=0
for target in $TARGETS; do
  echo "=== $target, $TIME s"
  mkdir -p "$FOLDER/corpus/$target" "$FOLDER/crashes/$target"
  "$FOLDER/$HOST/release/$target" -max_total_time="$TIME" -max_len=2048 -timeout=20 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$FOLDER/crashes/$target/" "$FOLDER/corpus/$target" \
    >"$FOLDER/$target.log" 2>&1 && failed=0 || failed=$?
  if [ "$failed" != 0 ]; then
    tail -n 60 "$FOLDER/$target.log"
    echo "=== $target FAILED; run it again with:"
    for input in "$FOLDER/crashes/$target"/*; do echo "$FOLDER/$HOST/release/$target $input"; done
    status=1
  else
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$FOLDER/$target.log"
  fi
done
exit "$status"
