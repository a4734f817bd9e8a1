//! Any bytes as a log. Seeds: the files of `tests/data`, with a byte for the family in front (0 MySQL, 1 MariaDB).
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/fuzz/target.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    target::run(input, &mut target::Shapes::default());
});
