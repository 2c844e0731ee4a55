//! Queries: what the kernel tells without being changed.

use compiler::diff::Generation;
use compiler::nft::{TABLE, TableFamily};
use rustix::io::Errno;

use super::Connection;
use crate::Error;
use crate::attr::AttrWriter;
use crate::constants::{chain, elem, flowtable, generation, msg, nfproto, nl, obj, rule, set, table};
use crate::decode::Decoder;
use crate::message::{self, Header, Message};

/// The present generation.
pub(super) fn generation(connection: &mut Connection) -> Result<Generation, Error> {
    const WHAT: &str = "the generation";
    let mut found = None;
    ask(
        connection,
        WHAT,
        TableFamily::Inet,
        msg::GETGEN,
        nl::F_ACK,
        |_| {},
        |message| {
            if message.nftables() == Some(msg::NEWGEN) {
                found = message.attributes().be32(generation::ID).map(Generation);
            }
        },
    )?;
    found.ok_or(Error::Query { what: WHAT, source: Errno::NODATA })
}

/// Reads the headers of the tables that are there.
pub(super) fn table_headers(connection: &mut Connection, decoder: &mut Decoder) -> Result<(), Error> {
    TableFamily::ALL
        .into_iter()
        .try_for_each(|family| table_header(connection, family, |message| decoder.message(message)))
}

fn table_header(
    connection: &mut Connection,
    family: TableFamily,
    on_message: impl FnMut(&Message<'_>),
) -> Result<(), Error> {
    let name = |w: &mut AttrWriter<'_>| w.string(table::NAME, TABLE);
    match ask(connection, "the table", family, msg::GETTABLE, nl::F_ACK, name, on_message) {
        Ok(_) | Err(Error::Query { source: Errno::NOENT, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads everything in the tables, showing each message to `also`; `false` where something changed meanwhile.
pub(super) fn tables(
    connection: &mut Connection,
    decoder: &mut Decoder,
    mut also: impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    for family in TableFamily::ALL {
        if !table(connection, family, decoder, &mut also)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn table(
    connection: &mut Connection,
    family: TableFamily,
    decoder: &mut Decoder,
    also: &mut impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    table_header(connection, family, |message| {
        also(message);
        decoder.message(message);
    })?;
    if !decoder.headers().contains_key(&family) {
        return Ok(true);
    }
    let parts = [
        ("chains", msg::GETCHAIN, chain::TABLE),
        ("rules", msg::GETRULE, rule::TABLE),
        ("sets", msg::GETSET, set::TABLE),
        ("counters", msg::GETOBJ, obj::TABLE),
        ("flow tables", msg::GETFLOWTABLE, flowtable::TABLE),
    ];
    for (what, kind, attribute) in parts {
        let undisturbed = dump(
            connection,
            what,
            family,
            kind,
            |w| w.string(attribute, TABLE),
            |message| {
                also(message);
                decoder.message(message);
            },
        )?;
        if !undisturbed {
            return Ok(false);
        }
    }
    for name in decoder.set_names(family) {
        let of_set = |w: &mut AttrWriter<'_>| {
            w.string(elem::LIST_TABLE, TABLE);
            w.string(elem::LIST_SET, name.as_str());
        };
        let undisturbed = dump(connection, "elements", family, msg::GETSETELEM, of_set, |message| {
            also(message);
            decoder.message(message);
        })?;
        if !undisturbed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs a dump; `false` where it was disturbed, or where what it is of is gone.
pub(super) fn dump(
    connection: &mut Connection,
    what: &'static str,
    family: TableFamily,
    kind: u16,
    attributes: impl FnOnce(&mut AttrWriter<'_>),
    on_message: impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    match ask(connection, what, family, kind, nl::F_DUMP, attributes, on_message) {
        Err(Error::Query { source: Errno::NOENT | Errno::INTR, .. }) => Ok(false),
        result => result,
    }
}

/// Runs a dump of what there is in all families; `false` where it was disturbed.
pub(super) fn dump_all(
    connection: &mut Connection,
    what: &'static str,
    kind: u16,
    on_message: impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    let sequence = connection.sequence;
    connection.sequence = sequence.wrapping_add(1);
    let kind = message::nftables(kind);
    let header = Header { kind, flags: nl::F_DUMP, sequence, family: nfproto::UNSPEC, resource: 0 };
    match connection.socket.ask(what, header, |_| {}, on_message) {
        Err(Error::Query { source: Errno::INTR, .. }) => Ok(false),
        result => result,
    }
}

/// Sends a request about tables of a family: see [`NetlinkSocket::ask`](crate::socket::NetlinkSocket::ask).
fn ask(
    connection: &mut Connection,
    what: &'static str,
    family: TableFamily,
    kind: u16,
    flags: u16,
    attributes: impl FnOnce(&mut AttrWriter<'_>),
    on_message: impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    let sequence = connection.sequence;
    connection.sequence = sequence.wrapping_add(1);
    let family = message::family_number(family);
    let header = Header { kind: message::nftables(kind), flags, sequence, family, resource: 0 };
    connection.socket.ask(what, header, attributes, on_message)
}
