//! Which rule comes nearest to allowing what one direction refuses.

use std::sync::Arc;

use compiler::api::{Direction, Pod};
use compiler::cluster::Namespaces;
use compiler::policy::{Effort, Known, Nearest, Packet, nearest};

use super::Model;

impl Model {
    /// The same model, which knows the labels of these Namespaces, and of these pods besides its own.
    #[must_use]
    pub fn knowing(self, namespaces: Namespaces, strangers: Vec<Arc<Pod>>) -> Model {
        Model { namespaces, strangers, ..self }
    }

    /// The rule that comes nearest to allowing a packet in one direction; `None` where policies of a node of the model do
    /// not refuse it.
    pub fn nearest(&self, direction: Direction, packet: &Packet, effort: &mut Effort) -> Option<Nearest> {
        let own = match direction {
            Direction::Egress => packet.source,
            Direction::Ingress => packet.destination,
        };
        let node = self.pods_node(&self.end(own))?;
        let known = Known { pods: &self.pods, strangers: &self.strangers, namespaces: &self.namespaces };
        nearest(&node.ir, &known, direction, packet, effort)
    }
}
