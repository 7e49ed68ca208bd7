//! `cargo +nightly fuzz run fuzz_rewrite` in `sidecar/`.
#![no_main]
#![allow(dead_code, reason = "each target runs one of the bodies")]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::rewrite(data));
