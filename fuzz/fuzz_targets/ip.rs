#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rootstream::cmdline::fuzzing::ip(input));
