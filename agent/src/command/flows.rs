//! `postern flows`: the open flows of the node's pods.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use compiler::api::escaped;
use netlink::Error;
use netlink::conntrack::{self, Change, Entry, Events, Heard};

use super::Exit;
use super::tether::tether;
use crate::args::{FlowsArgs, FlowsFilterArgs};
use crate::flows::{Client, Filter, MOST_ASKED, Names, Report, Wanted};

/// How long news are gathered before they are shown.
const BREATH: Duration = Duration::from_millis(200);
/// What says of which flows the kernel tells that they begin and end: 0 of none, 1 of all, 2 of those that begin while
/// somebody listens.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

pub(super) fn run(args: FlowsArgs) -> anyhow::Result<Exit> {
    let FlowsArgs { filter, admin_address, kubeconfig, tethered } = args;
    let FlowsFilterArgs { pod, namespace, policy, port, protocol, refused, watch, output } = filter;
    if tethered {
        tether()?;
    }
    let full = |name: String| {
        if name.contains('/') { name } else { format!("{}/{name}", namespace.as_deref().unwrap_or("default")) }
    };
    let (pod, policy) = (pod.map(full), policy.map(full));
    let wanted = Wanted { pod, namespace: namespace.clone(), policy };
    let (client, mut names) = (Client::new(admin_address), Names::new(kubeconfig)?);
    let mut filter = Filter::new(port, protocol);
    filter.aim(&client, &mut names, &wanted)?;
    let out = io::BufWriter::new(io::stdout().lock());
    let report = Report::new(&client, &mut names, out, output, wanted.policy.clone(), refused);
    if watch { follow(&client, &wanted, filter, report) } else { open(&filter, report) }
}

/// Shows the flows that are open.
fn open(filter: &Filter, mut report: Report<'_, impl Write>) -> anyhow::Result<Exit> {
    let on_entry = |entry: Entry| {
        if filter.passes(&entry) {
            report.add(None, &entry);
        }
    };
    let is_whole = conntrack::entries(on_entry).map_err(unreadable)?;
    report.flush()?;
    if !is_whole {
        note("connection tracking changed while it was read: flows may be missing");
    }
    report.notes().iter().for_each(|text| note(text));
    Ok(Exit::Done)
}

/// Shows flows as they begin and end, until nobody reads any more. The kernel tells each by itself: to walk through all
/// flows again and again would cost the node more, and miss the short ones.
fn follow(
    client: &Client,
    wanted: &Wanted,
    mut filter: Filter,
    mut report: Report<'_, impl Write>,
) -> anyhow::Result<Exit> {
    let mut events = Events::open(BREATH).map_err(unreadable)?;
    match fs::read_to_string(EVENTS).unwrap_or_default().trim() {
        "0" => anyhow::bail!("the kernel tells of no flow that begins or ends: net.netfilter.nf_conntrack_events is 0"),
        "2" => note("of flows that have begun before the end is not told: net.netfilter.nf_conntrack_events is 2"),
        _ => {}
    }
    let mut told = BTreeSet::new();
    let mut news: Vec<(Change, Entry)> = Vec::with_capacity(MOST_ASKED);
    let mut since = Instant::now();
    loop {
        if news.is_empty() {
            since = Instant::now();
        }
        let heard = events.next(|change, entry| news.push((change, entry))).map_err(unreadable)?;
        if heard == Heard::Lost {
            note("flows began and ended faster than they were read: some are missing");
        }
        if news.is_empty() || news.len() < MOST_ASKED && since.elapsed() < BREATH {
            continue;
        }
        // The pods of the node may be others by now.
        filter.aim(client, report.names(), wanted)?;
        for (change, entry) in news.drain(..).filter(|(_, entry)| filter.passes(entry)) {
            report.add(Some(change), &entry);
        }
        report.flush()?;
        for text in report.notes() {
            if !told.contains(&text) {
                note(&text);
                told.insert(text);
            }
        }
    }
}

/// Why connection tracking cannot be read, with what to do.
fn unreadable(error: Error) -> anyhow::Error {
    let reason = if error.is_permission() {
        "it takes CAP_NET_ADMIN in the node's network namespace: be root on the node, or use kubectl exec in the agent's pod"
    } else if error.is_unsupported() {
        "the kernel has no nf_conntrack_netlink (modprobe nf_conntrack_netlink)"
    } else {
        return anyhow::Error::from(error).context("cannot read connection tracking");
    };
    anyhow::anyhow!("cannot read connection tracking: {reason}")
}

fn note(text: &str) {
    eprintln!("note: {}", escaped(text));
}
