#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rootstream::ipv6::fuzzing::dhcp6(input));
