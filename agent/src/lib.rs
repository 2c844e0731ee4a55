//! Placeholder that the next commit replaces.

pub mod files;
