//! Files of manifests, in YAML or JSON.

#![no_main]

#[allow(dead_code, reason = "each target calls one of its functions")]
#[path = "../src/readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::manifests(bytes));
