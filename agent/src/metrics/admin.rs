//! Metrics of the admin server.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Metrics of the admin server.
#[derive(Debug, Clone, Default)]
pub struct AdminMetrics {
    closed: Counter,
}

impl AdminMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("admin_connections_closed", "Connections closed because of too many", self.closed.clone());
    }

    /// There were too many connections, and one was closed.
    pub fn connection_closed(&self) {
        self.closed.inc();
    }

    /// How many connections were closed because there were too many.
    pub fn closed_connections(&self) -> u64 {
        self.closed.get()
    }
}
