//! What can go wrong between a transaction and the kernel.

use std::fmt;
use std::io;

use compiler::nft::Key;
pub use rustix::io::Errno;

/// Why the kernel was not read or not changed.
///
/// Callers ask the predicates; the text is for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the netlink socket failed.
    #[error("cannot {what}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused operations; nothing of the transaction landed.
    #[error("the kernel refused to {}", Refusals(.0))]
    Refused(Vec<Refusal>),
    /// The kernel refused the batch as a whole; nothing of it landed.
    #[error("the kernel refused the batch")]
    BatchRefused(#[source] Errno),
    /// Another writer committed since the generation that the batch was computed against. Nothing landed.
    #[error("the ruleset changed since generation {generation}")]
    Restart {
        /// The generation that the batch was computed against.
        generation: u32,
    },
    /// The batch was sent, but whether it landed is not known: only a dump can tell.
    #[error("the kernel's answer was lost")]
    UnknownResult(#[source] io::Error),
    /// The batch does not fit the socket's send buffer, which may not be enlarged that far.
    #[error("a batch of {bytes} bytes does not fit the send buffer")]
    TooLarge {
        /// The length of the batch.
        bytes: usize,
    },
    /// The kernel refused to tell something.
    #[error("the kernel does not tell {what}")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: Errno,
    },
    /// Other writers committed during every attempt to read the table.
    #[error("the ruleset did not hold still for a dump ({attempts} attempts)")]
    Unsettled {
        /// How many dumps were tried.
        attempts: u32,
    },
    /// The table belongs to the socket of another living process (`flags owner`).
    #[error("the table is owned by another process (netlink port {port})")]
    OwnedByOther {
        /// The netlink port of the owner's socket: mostly, but not always, its process id.
        port: u32,
    },
}

/// One operation that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The place of the operation in [`Transaction::ops`](compiler::diff::Transaction::ops), or of the message in a
    /// [`RawBatch`](crate::RawBatch).
    pub op: usize,
    /// The operation in one short line.
    pub what: String,
    /// The part of the operation that the kernel named.
    pub at: At,
    /// The expression of the rule that the kernel named, by nftables' own word, such as `ct`.
    pub expression: Option<String>,
    /// Why.
    pub errno: Errno,
}

/// The part of an operation that the kernel objected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The kernel named no part.
    Whole,
    /// One key of a list of elements.
    Key(Key),
    /// One rule of the chain, counted from 0.
    Rule(usize),
}

/// Shows the first refusals: those after it are mostly its consequences.
struct Refusals<'a>(&'a [Refusal]);

// === impl Error ===

impl Error {
    /// Another writer was faster: dump and compute the transaction anew.
    pub fn is_restart(&self) -> bool {
        matches!(self, Error::Restart { .. })
    }

    /// The process lacks CAP_NET_ADMIN in its network namespace.
    pub fn is_permission(&self) -> bool {
        match self {
            Error::BatchRefused(errno) | Error::Query { source: errno, .. } => *errno == Errno::PERM,
            Error::Socket { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::Refused(_)
            | Error::Restart { .. }
            | Error::UnknownResult(_)
            | Error::TooLarge { .. }
            | Error::Unsettled { .. }
            | Error::OwnedByOther { .. } => false,
        }
    }

    /// The kernel has no nf_tables, or, of [`conntrack::flows`](crate::conntrack::flows), no nf_conntrack_netlink, or of
    /// [`LogReader`](crate::log::LogReader) no nfnetlink_log.
    pub fn is_unsupported(&self) -> bool {
        match self {
            // nfnetlink answers EOPNOTSUPP to a batch, and EINVAL to a query, for a subsystem that is not there.
            Error::BatchRefused(errno) => *errno == Errno::OPNOTSUPP,
            Error::Query { source, .. } => matches!(*source, Errno::OPNOTSUPP | Errno::INVAL),
            Error::Socket { source, .. } => matches!(
                source.raw_os_error().map(Errno::from_raw_os_error),
                Some(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT)
            ),
            Error::Refused(_)
            | Error::Restart { .. }
            | Error::UnknownResult(_)
            | Error::TooLarge { .. }
            | Error::Unsettled { .. }
            | Error::OwnedByOther { .. } => false,
        }
    }

    /// Another socket has what only one can have.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::Query { source: Errno::BUSY, .. })
    }

    /// The transaction may have landed or not: dump before anything else.
    pub fn is_unknown_result(&self) -> bool {
        matches!(self, Error::UnknownResult(_))
    }

    /// Another living process owns the table.
    pub fn is_owned_by_other(&self) -> bool {
        match self {
            Error::OwnedByOther { .. } => true,
            // Without CAP_NET_ADMIN the whole batch is refused, so EPERM of one operation is about the owner.
            Error::Refused(refusals) => refusals.iter().any(|refusal| refusal.errno == Errno::PERM),
            Error::Socket { .. }
            | Error::BatchRefused(_)
            | Error::Restart { .. }
            | Error::UnknownResult(_)
            | Error::TooLarge { .. }
            | Error::Query { .. }
            | Error::Unsettled { .. } => false,
        }
    }

    /// The expression, by nftables' own word, that the kernel does not know: mostly the module `nft_<word>` is missing.
    pub fn missing_expression(&self) -> Option<&str> {
        // A rule that names a chain, a set or a counter that is not there is refused with the same errno.
        let by_itself = |refusal: &&Refusal| {
            refusal.errno == Errno::NOENT
                && !matches!(refusal.expression.as_deref(), Some("immediate" | "lookup" | "objref"))
        };
        self.refusals().iter().filter(by_itself).find_map(|refusal| refusal.expression.as_deref())
    }

    /// The operations that were refused, in the order of the batch; empty for every other kind of error.
    pub fn refusals(&self) -> &[Refusal] {
        if let Error::Refused(refusals) = self { refusals } else { &[] }
    }
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.at {
            At::Whole => {}
            At::Key(key) => write!(f, " at key {key}")?,
            At::Rule(index) => write!(f, " at rule {index}")?,
        }
        if let Some(expression) = &self.expression {
            write!(f, ", expression {expression}")?;
        }
        write!(f, ": {}", self.errno)
    }
}

// === impl Refusals ===

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for (index, refusal) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{refusal}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
