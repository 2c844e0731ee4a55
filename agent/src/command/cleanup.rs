//! `postern cleanup`: removes the table.

use std::io::{self, Write as _};

use anyhow::Context as _;
use compiler::diff::Transaction;
use netlink::{Connection, Ownership};

use super::Exit;

pub(super) fn run() -> anyhow::Result<Exit> {
    let mut connection = Connection::open(Ownership::Plain).context("cannot talk to nf_tables")?;
    let mirror = connection.dump().context("cannot read table inet postern")?;
    let mut out = io::stdout();
    if mirror.table.is_none() {
        writeln!(out, "there is no table inet postern")?;
        return Ok(Exit::Done);
    }
    match connection.commit(&Transaction::cleanup(), mirror.generation) {
        Err(error) if error.is_permission() => {
            Err(error).context("cannot remove table inet postern; a running agent owns it: end the agent first")?
        }
        removed => removed.context("cannot remove table inet postern")?,
    };
    writeln!(out, "removed table inet postern: nothing is enforced on this node any more")?;
    Ok(Exit::Done)
}
