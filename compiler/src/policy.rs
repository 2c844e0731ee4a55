//! The policy IR.
