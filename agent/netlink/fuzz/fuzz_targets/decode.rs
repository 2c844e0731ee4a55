//! The kernel's dumps.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netlink::fuzz::decode(bytes));
