//! `cargo +nightly fuzz run fuzz_config` in `policy/`.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::config(data));
