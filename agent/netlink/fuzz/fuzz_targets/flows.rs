//! The kernel's dumps of connection tracking.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netlink::fuzz::flows(bytes));
