//! `postern cleanup`: removes the table.

use std::io::{self, Write as _};

use compiler::diff::Transaction;
use netlink::{Connection, Error, Ownership};

use super::Exit;

pub(super) fn run() -> anyhow::Result<Exit> {
    let opened = Connection::open(Ownership::Plain);
    let mut connection = opened.map_err(|error| explained(error, "cannot talk to nf_tables"))?;
    let dumped = connection.dump();
    let mirror = dumped.map_err(|error| explained(error, "cannot read table inet postern"))?;
    let mut out = io::stdout();
    if mirror.table.is_none() {
        writeln!(out, "there is no table inet postern")?;
        return Ok(Exit::Done);
    }
    let removed = connection.commit(&Transaction::cleanup(), mirror.generation);
    removed.map_err(|error| explained(error, "cannot remove table inet postern"))?;
    writeln!(out, "removed table inet postern: nothing is enforced on this node any more")?;
    Ok(Exit::Done)
}

/// An error with what to do about it, where that is known.
fn explained(error: Error, what: &str) -> anyhow::Error {
    let hint = if error.is_owned_by_other() {
        "; a running agent owns it: end the agent first"
    } else if error.is_permission() {
        "; CAP_NET_ADMIN is missing in this network namespace: run it as root there"
    } else {
        ""
    };
    anyhow::Error::from(error).context(format!("{what}{hint}"))
}

#[cfg(test)]
mod tests {
    use netlink::{At, Errno, Refusal};

    use super::*;

    #[test]
    fn the_hint_is_about_what_went_wrong() {
        let refusal =
            |errno| Refusal { op: 0, what: "destroy table".to_owned(), at: At::Whole, expression: None, errno };
        let text = |error| format!("{}", explained(error, "cannot"));
        let owned = "cannot; a running agent owns it: end the agent first";
        assert_eq!(text(Error::Refused(vec![refusal(Errno::PERM)])), owned);
        assert_eq!(text(Error::Refused(vec![refusal(Errno::BUSY)])), "cannot");
        let rights = "cannot; CAP_NET_ADMIN is missing in this network namespace: run it as root there";
        assert_eq!(text(Error::BatchRefused(Errno::PERM)), rights);
        assert_eq!(text(Error::Query { what: "the table", source: Errno::PERM }), rights);
    }
}
