#!/bin/sh
# Runs every fuzzer for a number of seconds, from the seeds and from what earlier runs found. Stops at the first broken
# promise; its input is then in fuzz/artifacts.
set -eu
seconds=$1
cd "$(dirname "$0")/.."

toolchain=nightly
rustup toolchain list | grep -q "^$toolchain" || rustup toolchain install --profile minimal $toolchain
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
cargo +$toolchain run -q --release --manifest-path fuzz/Cargo.toml --bin seeds
for target in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$target" .rs)
    echo "fuzz: $target for $seconds s"
    # 64 MiB at once is more than anything here may ask for.
    cargo +$toolchain fuzz run "$target" --target-dir target -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1
done
