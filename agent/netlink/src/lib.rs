//! Placeholder that the next commit replaces.
