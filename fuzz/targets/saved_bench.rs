#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| adit::fuzzing::saved_bench(input));
