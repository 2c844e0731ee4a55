//! What the state resolves to, and what the IR says of packets.

mod judge;
mod resolve;
