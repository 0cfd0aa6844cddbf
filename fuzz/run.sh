#!/bin/sh
# Runs every fuzzer for a number of seconds, from the seeds and from what earlier runs found. Stops at the first broken
# promise; its input is then in fuzz/artifacts.
set -eu
seconds=$1
cd "$(dirname "$0")/.."

toolchain=nightly
rustup toolchain list | grep -q "^$toolchain" || rustup toolchain install --profile minimal $toolchain
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
ROOTSTREAM_WRITE_SEEDS="$PWD/fuzz/corpus" cargo test -q -p rootstream --lib every_target_has_seeds
for target in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$target" .rs)
    echo "fuzz: $target for $seconds s"
    # No sanitizer: most of what is called is safe Rust, and errors inside the C decoders are left to those who
    # fuzz them. 64 MiB at once is more than any of them may ask for.
    cargo +$toolchain fuzz run --sanitizer none --target-dir target/fuzz "$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1
done
