//! The kernel, as the sync thread sees it: the one seam behind which effects sit.

pub mod bridge;
mod counters;
mod open_flows;

use compiler::diff::{Generation, Limits, Mirror, Transaction};
use netlink::{Claim, Committed, Connection, Error, Ownership};

pub use counters::Counters;
pub use open_flows::{as_policies_see, look, own_addresses};

/// What holds the tables of postern.
///
/// Implemented by the netlink connection, and by an in-memory kernel in tests; nothing else of the agent is replaced
/// there.
pub trait Kernel {
    /// Claims the table for this connection where it can be claimed, and says whose it is.
    fn adopt(&mut self) -> Result<Claim, Error>;
    /// The present generation of the ruleset, of all tables.
    fn generation(&mut self) -> Result<Generation, Error>;
    /// Reads the table back.
    fn dump(&mut self) -> Result<Mirror, Error>;
    /// Commits a transaction: all of it, or nothing, and nothing if there has been another commit since `generation`. With
    /// no generation it does not matter what others have committed, because they cannot edit the table.
    fn commit(&mut self, transaction: &Transaction, generation: Option<Generation>) -> Result<Committed, Error>;
}

/// Opens the connection of an agent, in the network namespace of the calling thread. The table that it creates is
/// protected from others where the kernel can do that.
///
/// # Errors
///
/// If there is no nf_tables, or no permission to use it.
pub fn connect() -> Result<Connection, Error> {
    let mut connection = Connection::open(Ownership::Plain)?;
    if connection.supports_ownership()? { Connection::open(Ownership::OwnerPersist) } else { Ok(connection) }
}

/// Whether the kernel can say if the source of a packet is routed to the link from which it came.
///
/// # Errors
///
/// If there is no nf_tables, or no permission to use it.
pub fn supports_source_routes() -> Result<bool, Error> {
    Ok(!is_before((5, 19)) && Connection::open(Ownership::Plain)?.supports_source_routes()?)
}

/// Whether the kernel can tell of some of the packets that rules refuse.
///
/// # Errors
///
/// If there is no nf_tables, or no permission to use it.
pub fn supports_denials() -> Result<bool, Error> {
    Connection::open(Ownership::Plain)?.supports_denials()
}

/// Whether the kernel has tables for what passes from port to port of a bridge.
///
/// # Errors
///
/// If there is no nf_tables, or no permission to use it.
pub fn supports_bridge_tables() -> Result<bool, Error> {
    Connection::open(Ownership::Plain)?.supports_bridge_tables()
}

/// What transactions may do on the running kernel.
pub fn limits() -> Limits {
    Limits { defer_chain_delete: is_before((6, 2)), ..Limits::default() }
}

/// Whether the running kernel is older than a version.
pub fn is_before(version: (u32, u32)) -> bool {
    is_release_before(&rustix::system::uname().release().to_string_lossy(), version)
}

/// Whether a kernel release such as `6.1.0-18-amd64` is older than a version. One that cannot be read counts as old:
/// what old kernels need does no harm to new ones.
fn is_release_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
        _ => true,
    }
}

// === impl Kernel ===

impl Kernel for Connection {
    fn adopt(&mut self) -> Result<Claim, Error> {
        Connection::adopt(self)
    }

    fn generation(&mut self) -> Result<Generation, Error> {
        Connection::generation(self)
    }

    fn dump(&mut self) -> Result<Mirror, Error> {
        Connection::dump(self)
    }

    fn commit(&mut self, transaction: &Transaction, generation: Option<Generation>) -> Result<Committed, Error> {
        Connection::commit(self, transaction, generation)
    }
}

#[cfg(test)]
mod tests {
    use super::is_release_before;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_release_before("5.15.0-105-generic", (6, 2)));
        assert!(is_release_before("6.1.0-18-amd64", (6, 2)));
        assert!(!is_release_before("6.2.0", (6, 2)));
        assert!(!is_release_before("6.18-rc1", (6, 2)));
        assert!(!is_release_before("10.0.1", (6, 2)));
        assert!(is_release_before("unknown", (6, 2)));
    }
}
