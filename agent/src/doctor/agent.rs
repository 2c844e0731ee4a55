//! What the agent says of itself.

use std::fs;
use std::os::unix::net::UnixStream;

use super::{Check, Subject};
use crate::quarantine;
use crate::status::{self, Status};

/// From how many seconds without a word on news cannot come: a watch that lives has one sooner, see
/// [`Freshness`](crate::watch::Freshness).
const SILENCE: u64 = 30;

/// The checks, and the status if the agent told it.
pub(super) fn checks(subject: &Subject) -> (Vec<Check>, Option<Status>) {
    match status::ask(subject.agent) {
        Ok(status) => {
            let mut checks = of_status(&status);
            checks.push(sandboxes(subject, &status));
            checks.push(socket(subject));
            (checks, Some(status))
        }
        Err(error) => {
            let check = Check::wrong(
                "agent",
                format!("no answer at {}: {error:#}", subject.agent),
                "what was enforced last stays in the kernel, but nothing new is enforced",
                "look at the state and the log of the agent's pod on this node; if it serves elsewhere, give --admin-address",
            );
            (vec![check], None)
        }
    }
}

fn of_status(status: &Status) -> Vec<Check> {
    let mut checks = vec![version(status)];
    checks.push(match &status.waiting_for[..] {
        [] => Check::ok("ready", "what is known is enforced"),
        waiting_for => Check::wrong(
            "ready",
            waiting_for.join("; "),
            "until then the policies are not, or not all, enforced as they are now",
            "the line names the cause; the log has each attempt",
        ),
    });
    checks.push(watches(status));
    checks.push(gate(status));
    checks.extend(of_quarantine(status));
    // What has a check of its own is not told twice.
    let is_told = |note: &&String| quarantine::is_told_by(note) || note.starts_with("the gate is open");
    checks.extend(status.notes.iter().filter(|note| !is_told(note)).map(|note| {
        let is_unpoliced = note.contains("NOT POLICED");
        let check = Check::note(
            "agent's note",
            note.clone(),
            "the agent runs all the same, and some things are weaker than they could be",
            "the line names the cause; see When things fail in the README",
        );
        if is_unpoliced { Check { state: super::State::Wrong, ..check } } else { check }
    }));
    checks
}

fn version(status: &Status) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    let pods = status.objects.get("LocalPod").copied().unwrap_or_default();
    let policies = status.objects.get("NetworkPolicy").copied().unwrap_or_default();
    let Status { version, node, .. } = status;
    let found = format!("version {version} on node {node}, {pods} pods here, {policies} policies known");
    if version == own {
        return Check::ok("agent", found);
    }
    Check::note(
        "agent",
        format!("{found}; this command is of version {own}"),
        "what differs between the versions may be taken for a fault",
        "run the command in the agent's own pod",
    )
}

fn watches(status: &Status) -> Check {
    let silent: Vec<String> = status
        .watches
        .iter()
        .filter(|(_, age)| **age > SILENCE)
        .map(|(kind, age)| format!("{kind}: no word from the API server for {age} s"))
        .collect();
    let oldest = status.watches.values().max();
    match (silent.is_empty(), oldest) {
        (true, None) => Check::ok("watches", "none: the objects are in files"),
        (true, Some(oldest)) => Check::ok("watches", format!("the oldest word of the API server is {oldest} s old")),
        (false, _) => Check::wrong(
            "watches",
            silent.join("; "),
            "what is known stays enforced, but changes of pods and policies do not come",
            "see whether the API server answers this node, and what the notes and the log say of it",
        ),
    }
}

fn gate(status: &Status) -> Check {
    match &status.gate.open_because {
        None if status.gate.ranges.is_empty() => Check::ok("gate", "nothing is enforced yet"),
        None => Check::ok("gate", format!("stands for {}", status.gate.ranges.join(", "))),
        Some(reason) => Check::note(
            "gate",
            format!("open: {reason}"),
            "a new pod may send and receive what its policies forbid until the agent knows its address",
            "see that the Node has podCIDRs, or give --pod-ranges; where the network plugin has ranges of its own it stays open",
        ),
    }
}

fn of_quarantine(status: &Status) -> Vec<Check> {
    if status.quarantined.is_empty() {
        return vec![Check::ok("quarantine", "every policy is enforced as it is written")];
    }
    let check = |(policy, reason): (&String, &String)| {
        Check::wrong(
            "quarantine",
            format!("NetworkPolicy {policy}: {reason}"),
            "its pods stay isolated, and it allows nothing",
            "make it smaller or split it, or raise --policy-budget or --namespace-budget",
        )
    };
    status.quarantined.iter().map(check).collect()
}

fn sandboxes(subject: &Subject, status: &Status) -> Check {
    let path = subject.cni_results.display();
    let pods = status.objects.get("LocalPod").copied().unwrap_or_default();
    let why =
        "a new pod is known some hundred milliseconds later, by its status alone, and on a bridge by what it sends";
    match fs::read_dir(&subject.cni_results) {
        Err(error) => Check::note(
            "CNI results",
            format!("{path}: {error}"),
            why,
            "mount the folder of the container runtime read-only into the agent's pod; other runtimes have none",
        ),
        Ok(_) if status.sandboxes == 0 && pods > 0 => Check::note(
            "CNI results",
            format!("{path} tells of no network of the {pods} pods here"),
            why,
            "see that it is the folder of libcni (containerd and CRI-O keep it), and give --cni-results to the agent",
        ),
        Ok(_) => Check::ok("CNI results", format!("{path} tells of {} networks", status.sandboxes)),
    }
}

fn socket(subject: &Subject) -> Check {
    let path = subject.socket.display();
    match UnixStream::connect(&subject.socket) {
        Ok(_) => Check::ok("socket", format!("{path} is served")),
        Err(error) => Check::note(
            "socket",
            format!("{path}: {error}"),
            "without it nobody is shown what was refused (postern denials)",
            "run this as root of the node or in the agent's pod; see --socket of the agent",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::doctor::State;
    use crate::status::Gate;

    fn healthy() -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: "n1".to_owned(),
            epoch: 7,
            since: None,
            failing: false,
            generation: Some(3),
            waiting_for: Vec::new(),
            notes: Vec::new(),
            watches: BTreeMap::from([("Pod".to_owned(), 3), ("Namespace".to_owned(), 12)]),
            objects: BTreeMap::from([("LocalPod".to_owned(), 2)]),
            sandboxes: 2,
            quarantined: BTreeMap::new(),
            gate: Gate { ranges: vec!["10.1.0.0/24".to_owned()], open_because: None },
        }
    }

    /// What is not well, `check: state`.
    fn unwell(status: &Status) -> Vec<String> {
        let checks = of_status(status).into_iter().filter(|check| check.state != State::Ok);
        checks.map(|check| format!("{}: {}", check.check, check.state.as_str())).collect()
    }

    #[test]
    fn each_thing_that_may_be_amiss() {
        type Case = (fn(&mut Status), &'static [&'static str]);
        let ill: [Case; 8] = [
            (|_| {}, &[]),
            (|status| status.version = "0.0.1".to_owned(), &["agent: note"]),
            (|status| status.waiting_for.push("waiting for the list of Pods".to_owned()), &["ready: wrong"]),
            (|status| *status.watches.get_mut("Pod").unwrap() = 31, &["watches: wrong"]),
            (|status| status.gate = Gate { ranges: vec![], open_because: Some("no ranges".into()) }, &["gate: note"]),
            (|status| drop(status.quarantined.insert("a/b".into(), "too large".into())), &["quarantine: wrong"]),
            (|status| status.notes.push("links cannot be followed".into()), &["agent's note: note"]),
            (
                |status| {
                    status.notes.push("packets between pods of one bridge are NOT POLICED: because".into());
                    status.notes.push("NetworkPolicy a/b is quarantined and allows nothing: too large".into());
                },
                &["agent's note: wrong"],
            ),
        ];
        for (spoil, due) in ill {
            let mut status = healthy();
            spoil(&mut status);
            assert_eq!(unwell(&status), due);
        }
    }
}
