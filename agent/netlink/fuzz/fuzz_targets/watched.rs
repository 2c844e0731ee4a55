//! Pods and Namespaces, as a watch decodes them.

#![no_main]

#[allow(dead_code, reason = "each target calls one of its functions")]
#[path = "../src/readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::watched(bytes));
