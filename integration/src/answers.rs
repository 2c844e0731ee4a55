//! What `explain` and `try` answer.

use anyhow::Result;
use postern::probes::Answer;

/// An answer of `explain`, a JSON line, without the rules that come nearest, of which packets tell nothing.
///
/// # Errors
///
/// If it is none.
pub fn without_nearest(explained: &str) -> Result<String> {
    let mut answer: Answer = serde_json::from_str(explained)?;
    let of_endpoints = answer.endpoints.iter_mut().flat_map(|endpoint| [&mut endpoint.egress, &mut endpoint.ingress]);
    of_endpoints.chain([&mut answer.egress, &mut answer.ingress]).for_each(|side| side.nearest = None);
    Ok(serde_json::to_string(&answer)?)
}
