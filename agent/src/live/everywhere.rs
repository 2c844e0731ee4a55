//! The agents of all nodes: each is asked about the ends that are on its node, and the answers are put together.

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use compiler::nft::Family;
use futures::future::join_all;
use kube::Client;

use super::NO_COMMON_FAMILY;
use super::agent::Unanswered;
use crate::explanation::{Asked, Explanation, stranger};
use crate::lookup::{AgentPod, Agents, Lookup};
use crate::probes::{Probe, SideAnswer};
use crate::remote::{Conversation, Hello, Reply};
use ends::{End, Ends};

/// Of a node that is not among the agents.
const NOT_ASKED: &str = "no agent of it is known, or it is not among the nodes that are asked";

/// The agents of all nodes.
pub(crate) struct Everywhere {
    client: Client,
    agents: Agents,
    /// How long each may take.
    patience: Duration,
    /// Those that were asked: how to go on, or why not.
    talks: BTreeMap<String, Result<Conversation, String>>,
    ends: Ends,
    /// What is to be said of agents besides, in words.
    remarks: BTreeSet<String>,
}

/// What came of asking one agent.
struct Asking {
    node: String,
    talk: Result<Conversation, String>,
    reply: Result<Reply, String>,
}

/// The answer of an agent, or why there is none.
type Part = Result<Explanation, String>;

impl Everywhere {
    /// # Errors
    ///
    /// In words, if there is no way to the API server.
    pub(crate) fn new(lookup: &mut Lookup, agents: Agents, patience: Duration) -> Result<Everywhere, String> {
        let (_, client) = lookup.streaming().map_err(|missing| missing.to_string())?;
        let (talks, remarks) = (BTreeMap::new(), BTreeSet::new());
        Ok(Everywhere { client, agents, patience, talks, ends: Ends::default(), remarks })
    }

    pub(crate) fn remarks(&self) -> impl Iterator<Item = &str> {
        self.remarks.iter().map(String::as_str)
    }

    /// Remembers whose an address is.
    pub(super) fn know(&mut self, address: IpAddr, pod: &compiler::api::PodKey) {
        self.ends.know(address, pod);
    }

    /// Asks the agents of both ends at once.
    pub(super) fn ask(&mut self, lookup: &mut Lookup, probe: &Probe) -> Result<Explanation, Unanswered> {
        let ends = [self.ends.find(lookup, &probe.src)?, self.ends.find(lookup, &probe.dst)?];
        let addresses = between(&ends)?;
        let mut nodes: Vec<&str> = ends.iter().filter_map(|end| end.node.as_deref()).collect();
        nodes.dedup();
        if nodes.is_empty() {
            // Nobody decides, and any agent can say so.
            nodes.extend(self.agents.iter().find(|(_, agent)| agent.is_ok()).map(|(node, _)| &**node));
        }
        let questions: Vec<(String, Asked)> =
            nodes.iter().map(|node| ((*node).to_owned(), question(probe, node, &ends, addresses))).collect();
        let mut parts = self.ask_each(lookup, questions)?;
        let of =
            |end: &End| end.node.as_ref().and_then(|node| parts.get(node).cloned().map(|part| (node.clone(), part)));
        let sides = [of(&ends[0]), of(&ends[1])];
        let part = match sides {
            [None, None] => match parts.pop_first() {
                Some((_, Ok(part))) => Ok(part),
                Some((node, Err(reason))) => Err(format!("node {node}: {reason}")),
                None => Err("no node has an agent that runs".to_owned()),
            },
            sides => together(sides),
        };
        let mut part = part.map_err(Unanswered::Reason)?;
        part.answer.src.clone_from(&probe.src);
        part.answer.dst.clone_from(&probe.dst);
        for (at, end) in ends.iter().enumerate() {
            let address = part.addresses[at];
            if let (Some(pod), true) = (&end.pod, part.ends[at] == address.to_string()) {
                part.ends[at] = format!("{} ({address})", pod.key);
            }
        }
        Ok(part)
    }

    /// The answers of these nodes' agents. A pod that an agent does not know is news to it.
    fn ask_each(
        &mut self,
        lookup: &mut Lookup,
        questions: Vec<(String, Asked)>,
    ) -> Result<BTreeMap<String, Part>, Unanswered> {
        let (client, patience) = (&self.client, self.patience);
        let asking = questions.into_iter().map(|(node, asked)| {
            let talk = self.talks.remove(&node);
            let agent = self.agents.get(&node).cloned().unwrap_or_else(|| Err(NOT_ASKED.to_owned()));
            ask_one(client, node, agent, talk, asked, patience)
        });
        let asking: Vec<_> = asking.collect();
        let (runtime, _) = lookup.streaming().map_err(|missing| Unanswered::Reason(missing.to_string()))?;
        let asked = runtime.block_on(join_all(asking));
        let mut parts = BTreeMap::new();
        for Asking { node, talk, reply } in asked {
            if let Ok(talk) = &talk {
                self.remarks.extend(remarks(&node, talk.hello()));
            }
            self.talks.insert(node.clone(), talk);
            let part = match reply {
                Ok(Reply::Explanation(part)) => Ok(*part),
                Ok(Reply::NoSuchPod(name)) => Err(format!("its agent does not know pod {name} yet")),
                Ok(Reply::Reason(reason)) | Err(reason) => Err(reason),
            };
            parts.insert(node, part);
        }
        Ok(parts)
    }
}

async fn ask_one(
    client: &Client,
    node: String,
    agent: Result<AgentPod, String>,
    talk: Option<Result<Conversation, String>>,
    asked: Asked,
    patience: Duration,
) -> Asking {
    let talk = match (talk, agent) {
        (Some(talk), _) => talk,
        (None, Ok(agent)) => Conversation::begin(client, &agent, patience).await,
        (None, Err(reason)) => Err(reason),
    };
    match talk {
        Ok(mut talk) => {
            let reply = talk.ask(&asked, patience).await;
            // Where an answer is owed, the next one might be taken for it.
            let talk = reply.as_ref().map(|_| talk).map_err(Clone::clone);
            Asking { node, talk, reply }
        }
        Err(reason) => Asking { node, talk: Err(reason.clone()), reply: Err(reason) },
    }
}

/// What is to be said of an agent besides its answers.
fn remarks(node: &str, hello: &Hello) -> Vec<String> {
    let own = env!("CARGO_PKG_VERSION");
    let version = (hello.version != own).then(|| {
        format!(
            "the agent of node {node} is of version {}, and this is {own}: its answers may lack something",
            hello.version
        )
    });
    let note = hello.note.as_ref().map(|note| format!("node {node}: {note}"));
    version.into_iter().chain(note).collect()
}

/// The addresses between which the question is, the client's first choice first.
fn between(ends: &[End; 2]) -> Result<[IpAddr; 2], Unanswered> {
    if let Some(end) = ends.iter().find(|end| end.addresses.is_empty()) {
        return Err(Unanswered::Reason(format!("pod {} has no address", end.text)));
    }
    let pairs = ends[0].addresses.iter().flat_map(|a| ends[1].addresses.iter().map(move |b| [*a, *b]));
    let mut fitting = pairs.filter(|[a, b]| Family::of(*a) == Family::of(*b));
    let missing = || Unanswered::Reason(format!("{} and {} {NO_COMMON_FAMILY}", ends[0].text, ends[1].text));
    fitting.next().ok_or_else(missing)
}

/// What the agent of a node is asked: its own pods it knows by name, others perhaps not.
fn question(probe: &Probe, node: &str, ends: &[End; 2], addresses: [IpAddr; 2]) -> Asked {
    let is_local = |end: &End| end.node.as_deref() == Some(node);
    let text = |end: &End, address: IpAddr| if is_local(end) { end.text.clone() } else { address.to_string() };
    let strangers = ends.iter().filter(|end| !is_local(end)).filter_map(|end| stranger::told(end.pod.as_ref()?));
    Asked {
        strangers: strangers.collect(),
        probe: Probe {
            src: text(&ends[0], addresses[0]),
            dst: text(&ends[1], addresses[1]),
            allowed: None,
            ..probe.clone()
        },
    }
}

/// One answer of two: each side by the node that decides it. Where that gave none, the side is open, and it is said.
fn together(sides: [Option<(String, Part)>; 2]) -> Part {
    let given = |side: &Option<(String, Part)>| side.as_ref().and_then(|(_, part)| part.clone().ok());
    let Some(mut whole) = given(&sides[1]).or_else(|| given(&sides[0])) else {
        let reasons: BTreeSet<String> = sides
            .into_iter()
            .flatten()
            .filter_map(|(node, part)| Some(format!("node {node}: {}", part.err()?)))
            .collect();
        return Err(reasons.into_iter().collect::<Vec<_>>().join("; "));
    };
    for (at, side) in sides.into_iter().enumerate() {
        match side {
            None => {}
            Some((_, Ok(part))) => whole.take_side(at, part),
            Some((node, Err(reason))) => *whole.side(at) = SideAnswer::unanswered(node, reason),
        }
    }
    whole.answer.allowed = whole.answer.egress.allowed && whole.answer.ingress.allowed;
    Ok(whole)
}

impl Explanation {
    fn side(&mut self, at: usize) -> &mut SideAnswer {
        if at == 0 { &mut self.answer.egress } else { &mut self.answer.ingress }
    }

    /// Has one side, 0 for egress and 1 for ingress, as another explanation of the same flow has it.
    fn take_side(&mut self, at: usize, mut other: Explanation) {
        *self.side(at) = other.side(at).clone();
        self.ends[at] = std::mem::take(&mut other.ends[at]);
        self.paths[at] = std::mem::take(&mut other.paths[at]);
        self.base_chains[at] = other.base_chains[at].take();
        self.bridge_chains[at] = other.bridge_chains[at].take();
        self.disagrees |= other.disagrees;
        self.notes.extend(other.notes);
        self.notes.sort();
        self.notes.dedup();
    }
}
