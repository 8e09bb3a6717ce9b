#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| paraslot_tests::targets::vfio_user(data));
