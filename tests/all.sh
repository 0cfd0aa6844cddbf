#!/bin/sh
# Runs every test with virtual nodes by itself, and remembers which of them passed with these very programs: a run that
# was broken off goes on where it was.
set -eu
init=$1
tests="cargo test -q --workspace --features rootstream/netboot"
$tests --no-run
programs=$(cat "$init" target/debug/lab target/debug/rootstream | sha256sum | cut -c1-16)
passed=build/test-all/$programs
mkdir -p "$passed"
failed=
for file in netboot network power stage2 variants bootpaths; do
    for name in $($tests --test $file -- --list --format terse | sed -n 's/: test$//p'); do
        if [ -e "$passed/$file.$name" ]; then
            echo "test-all: $file $name: passed before"
            continue
        fi
        start=$(date +%s)
        if $tests --test $file -- --exact --nocapture "$name"; then
            echo "test-all: $file $name: passed in $(($(date +%s) - start)) s" | tee "$passed/$file.$name"
        else
            failed="$failed $file::$name"
        fi
    done
done
[ -z "$failed" ] || { echo "test-all: failed:$failed" >&2; exit 1; }
echo "test-all: all passed"
