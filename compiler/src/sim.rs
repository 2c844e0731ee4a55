//! What tests judge the compiler with: generated clusters, packets at their edges, a search for disagreements, and an
//! nf_tables in memory.
//!
//! ```text
//! generate   seed                 -> Cluster: manifests, as an API server would hold them
//! packets    Cluster              -> packets at the edges of what its policies say
//! judges     Cluster, packet      -> Opinions: the API's words, the IR, the traced table
//! search     seed, count          -> the smallest cluster and packet on which they differ
//! broken     manifest             -> the same, with something in it that no API server takes
//! events     clusters             -> what a watch might report on the way from one to the next
//! kernel     transaction          -> what nf_tables would answer, and hold afterwards
//! ```
//!
//! Behind the feature `sim`, which no product build has.

pub mod broken;
mod cluster;
mod dice;
pub mod events;
pub mod generate;
mod judges;
mod kernel;
mod packets;
mod search;

pub use crate::yaml::to_yaml;
pub use cluster::{Cluster, Compiled, ParsedCluster};
pub use dice::Dice;
pub use judges::{Disagreement, Judges, Opinions};
pub use kernel::{Errno, Kernel, Refused, Release};
pub use packets::{Edges, traced};
pub use search::{Counts, Failure, Report, Search};
