//! Tests of the whole agent, and what they stand on: a real API server, the manifests, the image.

pub mod agent;
pub mod answers;
pub mod container;
pub mod control_plane;
pub mod datagrams;
pub mod denials;
pub mod examples;
pub mod fake_api;
pub mod fleet;
pub mod image;
pub mod kubelet;
pub mod line;
pub mod live;
pub mod node;
pub mod relay;
pub mod repository;
pub mod scene;
pub mod series;
pub mod soak;
pub mod starts;
pub mod usage;
