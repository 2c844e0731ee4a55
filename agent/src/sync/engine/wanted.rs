//! What the policies in use speak of, worked out anew only when it may be something else: it takes a look at all of them.

use std::sync::Arc;

use compiler::cluster::{Interest, State};

/// What was of interest at the last look.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Of what the policies in use name, and of the labels of the Namespaces.
    versions: Option<[u64; 2]>,
    interest: Arc<Interest>,
}

// === impl Wanted ===

impl Wanted {
    /// What is of interest now.
    pub(super) fn of(&mut self, state: &State) -> Arc<Interest> {
        let versions = state.versions();
        let versions = Some([versions.selectors, versions.namespaces]);
        if self.versions != versions {
            self.versions = versions;
            let interest = Interest::of(state);
            if *self.interest != interest {
                self.interest = Arc::new(interest);
            }
        }
        self.interest.clone()
    }
}
