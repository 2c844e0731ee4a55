//! The kernel's answers to a batch, with extended acks.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netlink::fuzz::answers(bytes));
