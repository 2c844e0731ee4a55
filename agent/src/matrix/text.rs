//! What people read of a matrix and of changes: servers with who may talk to them, those together who may do the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{Cell, Color, Table, presets};

use super::changes::{Change, arrivals};
use super::{Matrix, Open, Party};

/// The most servers, and clients, that stand in a table side by side; more are listed.
const WIDEST: usize = 7;
const LONGEST: usize = 20;
/// The longest cell of such a table.
const LONGEST_CELL: usize = 28;
/// How many names stand in a line.
const MOST_NAMES: usize = 12;
/// How many of one kind may be called everybody else.
const FEW: usize = 3;

/// Something that is open, or opens or closes, between two parties.
struct Entry {
    from: usize,
    to: usize,
    what: String,
}

/// By whom entries are put together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Server,
    Client,
}

/// A party with what is said of it: what, and with whom.
struct Block {
    party: usize,
    rows: Vec<(String, String)>,
}

/// What is open between two parties: `5432/TCP`, or by family where they differ.
pub fn said(open: &Open) -> String {
    match (open.alike(), &open.v4, &open.v6) {
        (Some(ports), _, _) => ports.to_string(),
        (None, Some(v4), Some(v6)) if v4.is_none() => format!("{v6} (IPv6)"),
        (None, Some(v4), Some(v6)) if v6.is_none() => format!("{v4} (IPv4)"),
        (None, Some(v4), Some(v6)) => format!("{v4} (IPv4), {v6} (IPv6)"),
        (None, _, _) => "nothing".to_owned(),
    }
}

/// The matrix of one cluster: a table where it is small, else a list of servers.
pub fn matrix(matrix: &Matrix, colour: bool) -> String {
    let entry = |cell: &super::Cell| Entry { from: cell.from, to: cell.to, what: said(&cell.open[0]) };
    let entries: Vec<Entry> = matrix.cells.iter().map(entry).collect();
    table(&matrix.parties, &entries, colour).unwrap_or_else(|| list(&matrix.parties, &entries))
}

fn table(parties: &[Party], entries: &[Entry], colour: bool) -> Option<String> {
    let clients: BTreeSet<usize> = entries.iter().map(|entry| entry.from).collect();
    let servers: BTreeSet<usize> = entries.iter().map(|entry| entry.to).collect();
    let is_long = |entry: &Entry| entry.what.len() > LONGEST_CELL;
    if servers.len() > WIDEST || clients.len() > LONGEST || entries.iter().any(is_long) {
        return None;
    }
    let by_pair: BTreeMap<(usize, usize), &str> = entries.iter().map(|e| ((e.from, e.to), &*e.what)).collect();
    let mut table = Table::new();
    // A column is as wide as its longest word, so names stand in several lines.
    let header = servers.iter().map(|server| parties[*server].name.replace('/', "/\n"));
    table.load_style(presets::NOTHING).set_header([String::from("from \\ to")].into_iter().chain(header));
    if colour {
        table.enforce_styling();
    }
    for client in &clients {
        let of_client = servers.iter().map(|server| {
            let (text, painted) = match by_pair.get(&(*client, *server)) {
                Some(&"nothing") => ("-", Some(Color::Red)),
                Some(what) => (*what, Some(Color::Green)),
                None => (".", None),
            };
            let cell = Cell::new(text);
            painted.filter(|_| colour).map_or(cell.clone(), |painted| cell.fg(painted))
        });
        table.add_row([Cell::new(&parties[*client].name)].into_iter().chain(of_client));
    }
    Some(table.trim_fmt() + "\n")
}

fn list(parties: &[Party], entries: &[Entry]) -> String {
    let mut text = String::new();
    let mut namespace = None;
    for Block { party, rows } in blocks(parties, entries, entries, By::Server, true) {
        let party = &parties[party];
        if namespace != Some(&party.namespace) {
            let gap = if namespace.is_some() { "\n" } else { "" };
            let heading = party.namespace.as_ref().map_or("outside".to_owned(), |name| format!("namespace {name}"));
            writeln!(text, "{gap}{heading}").expect("a String takes all that is written");
            namespace = Some(&party.namespace);
        }
        writeln!(text, "  to {}{}", party.name, pods(party, 0)).expect("a String takes all that is written");
        rows_of(&mut text, &rows, "from");
    }
    text
}

/// Changes, in the order opens, closes, who comes and who goes.
pub fn changes(matrix: &Matrix, changes: &[Change]) -> String {
    let mut text = String::new();
    for (title, entries) in sections(changes) {
        let (by, blocks) = shorter(matrix, &entries);
        writeln!(text, "{title}").expect("a String takes all that is written");
        for Block { party, rows } in blocks {
            let (own, others) = by.words();
            writeln!(text, "  {own} {}", matrix.parties[party].name).expect("a String takes all that is written");
            rows_of(&mut text, &rows, others);
        }
    }
    for (word, party) in arrivals(matrix) {
        writeln!(text, "{word} {}", party.name).expect("a String takes all that is written");
    }
    text
}

/// The same for the comment of a pull request.
pub fn markdown(matrix: &Matrix, changes: &[Change]) -> String {
    let mut text = String::from("### What the policies change\n");
    let arrivals: Vec<_> = arrivals(matrix).collect();
    if changes.is_empty() && arrivals.is_empty() {
        text += "\nNothing: the same connections are open before and after.\n";
    }
    for (title, entries) in sections(changes) {
        let (by, blocks) = shorter(matrix, &entries);
        let (own, others) = by.words();
        write!(text, "\n**{}**\n\n| {own} | ports | {others} |\n|---|---|---|\n", capital(title))
            .expect("a String takes all that is written");
        for Block { party, rows } in blocks {
            for (what, who) in rows {
                writeln!(text, "| `{}` | {what} | {who} |", matrix.parties[party].name)
                    .expect("a String takes all that is written");
            }
        }
    }
    if !arrivals.is_empty() {
        text.push('\n');
    }
    for (word, party) in arrivals {
        writeln!(text, "- {word} `{}`", party.name).expect("a String takes all that is written");
    }
    text
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// What opens, and what closes, as far as something does.
fn sections(changes: &[Change]) -> impl Iterator<Item = (&'static str, Vec<Entry>)> {
    let of = |title: &'static str, open: fn(&Change) -> &Open| {
        let changed = changes.iter().filter(move |change| !open(change).is_none());
        let entry = move |change: &Change| Entry { from: change.from, to: change.to, what: said(open(change)) };
        (title, changed.map(entry).collect::<Vec<_>>())
    };
    let sections = [of("opens", |change| &change.opens), of("closes", |change| &change.closes)];
    sections.into_iter().filter(|(_, entries)| !entries.is_empty())
}

/// The entries by server or by client, whichever takes fewer lines.
fn shorter(matrix: &Matrix, entries: &[Entry]) -> (By, Vec<Block>) {
    let all: Vec<Entry> =
        matrix.cells.iter().map(|cell| Entry { from: cell.from, to: cell.to, what: String::new() }).collect();
    let by = |by: By| blocks(&matrix.parties, entries, &all, by, false);
    let (servers, clients) = (by(By::Server), by(By::Client));
    let lines = |blocks: &[Block]| blocks.iter().map(|block| 1 + block.rows.len()).sum::<usize>();
    if lines(&clients) < lines(&servers) { (By::Client, clients) } else { (By::Server, servers) }
}

impl By {
    /// Who stands at the head, and who in the rows.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            By::Server => ("to", "from"),
            By::Client => ("from", "to"),
        }
    }

    fn key(self, entry: &Entry) -> (usize, usize) {
        match self {
            By::Server => (entry.to, entry.from),
            By::Client => (entry.from, entry.to),
        }
    }
}

/// Entries by party, those with the same content together. `all` has every pair, of which `entries` are some. With
/// `and_else` the largest part of a party's is said of everybody else.
fn blocks(parties: &[Party], entries: &[Entry], all: &[Entry], by: By, and_else: bool) -> Vec<Block> {
    let mut by_party: BTreeMap<usize, BTreeMap<&str, BTreeSet<usize>>> = BTreeMap::new();
    for entry in entries {
        let (party, other) = by.key(entry);
        by_party.entry(party).or_default().entry(&entry.what).or_default().insert(other);
    }
    let mut everybody: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (party, other) in all.iter().map(|entry| by.key(entry)) {
        everybody.entry(party).or_default().insert(other);
    }
    let block = |(party, by_what): (usize, BTreeMap<&str, BTreeSet<usize>>)| {
        let everybody = &everybody[&party];
        let most = by_what.iter().max_by_key(|(_, others)| others.len()).map(|(what, _)| *what);
        let is_rest = |what: &str, others: &BTreeSet<usize>| {
            and_else && by_what.len() > 1 && others.len() > FEW && most == Some(what)
        };
        let (rest, named): (Vec<_>, Vec<_>) = by_what.iter().partition(|(what, others)| is_rest(what, others));
        let named = named.into_iter().map(|(what, others)| ((*what).to_owned(), names(parties, others, everybody)));
        let rest = rest.into_iter().map(|(what, _)| ((*what).to_owned(), "everybody else".to_owned()));
        Block { party, rows: named.chain(rest).collect() }
    };
    by_party.into_iter().map(block).collect()
}

/// `everybody`, or the names, with those of a namespace as one where all of it are meant.
fn names(parties: &[Party], some: &BTreeSet<usize>, everybody: &BTreeSet<usize>) -> String {
    if some == everybody && some.len() > 1 {
        return "everybody".to_owned();
    }
    let mut by_namespace: BTreeMap<(bool, Option<&str>), [Vec<&str>; 2]> = BTreeMap::new();
    for index in everybody {
        let party = &parties[*index];
        let key = (party.namespace.is_none(), party.namespace.as_deref());
        let [of_some, of_all] = by_namespace.entry(key).or_default();
        of_all.push(&party.name);
        of_some.extend(some.contains(index).then_some(&*party.name));
    }
    let mut names = Vec::new();
    for ((_, namespace), [of_some, of_all]) in by_namespace {
        match namespace {
            Some(namespace) if of_some.len() == of_all.len() && of_all.len() > 1 => {
                names.push(format!("ns/{namespace}"))
            }
            Some(_) | None => names.extend(of_some.iter().map(|name| (*name).to_owned())),
        }
    }
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

fn rows_of(text: &mut String, rows: &[(String, String)], word: &str) {
    let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    for (what, who) in rows {
        writeln!(text, "    {what:<width$}  {word} {who}").expect("a String takes all that is written");
    }
}

/// ` (3 pods)`, of those that stand for several.
fn pods(party: &Party, index: usize) -> String {
    match party.pods(index).len() {
        0 | 1 => String::new(),
        many => format!(" ({many} pods)"),
    }
}
