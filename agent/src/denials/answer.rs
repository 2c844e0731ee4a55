//! What is answered to whoever asks for denials.

use std::net::IpAddr;

use compiler::api::Protocol;
use compiler::nft::Refusal;
use compiler::policy::{self, Effort, Known, Packet, PacketProtocol};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ledger::{Denial, Kind, Ledger};
use super::packet::Payload;
use crate::kernel::own_addresses;
use crate::model::Model;
use crate::near_rule::NearRule;
use crate::sync::Snapshot;

/// Where they are asked for, on the agent's socket.
pub const PATH: &str = "/denials";

/// How many entries of rules one answer looks at for the nearest: a second's work at most, whatever tenants write.
const MOST_ENTRIES: usize = 20 * Effort::OF_A_QUESTION;

/// What is asked for. A name that the agent does not know is no error: the pod may have gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Only what was told of since then.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only what was told of after the change with this number: that of an earlier answer.
    #[serde(default)]
    pub after: u64,
    /// Only what has this pod, `namespace/name`, at an end.
    #[serde(default)]
    pub pod: Option<String>,
    /// Only what has a pod of this namespace at an end.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Denials {
    /// The number of the last change.
    pub number: u64,
    /// Why there may be none though something was refused. Left out where that is not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// In the order in which they were last told of.
    pub denials: Vec<Denial>,
}

/// Answers.
pub fn answer(ledger: &Ledger, snapshot: &Snapshot, note: Option<String>, asked: &Asked) -> Denials {
    let (number, found) = ledger.since(asked.since.unwrap_or(Timestamp::MIN), asked.after);
    let enforced = snapshot.enforced.as_ref();
    let model = enforced.map(|now| Model::of_node(snapshot.pods.clone(), now.ir.clone(), now.table.clone()));
    // The gate is not for the node's own. Where they cannot be read, the agent's readiness tells.
    let own = own_addresses().unwrap_or_default();
    let model =
        model.map(|model| model.knowing(snapshot.namespaces.clone(), Vec::new()).on(snapshot.links.clone(), own));
    let (mut denials, mut effort) = (Vec::new(), Effort::of(MOST_ENTRIES));
    for (kind, mut denial) in found.into_iter().filter(|(_, denial)| asked.is_about(denial)) {
        let ends = [denial.source.address, denial.destination.address];
        if let (Some(model), Some(packet)) = (&model, first_packet(kind.refusal, ends, kind.payload)) {
            denial.allowed_now = Some(model.judge(&packet).allowed());
            if let (Refusal::Policy(direction), Some(false)) = (kind.refusal, denial.allowed_now) {
                let nearest = model.nearest(direction, &packet, &mut effort);
                let nearest = nearest.filter(|nearest| !nearest.partial);
                denial.nearest = nearest.map(|nearest| NearRule::of(&nearest, direction).in_words(direction));
            }
        }
        denials.push(denial);
    }
    Denials { number, note, denials }
}

/// The rule that comes nearest to allowing what was refused, by what is known and enforced now; `None` where policies are not
/// the reason, allow it by now, or have more entries than may be looked at. It copies nothing, as it is asked for each line
/// of the log.
pub(super) fn nearest(snapshot: &Snapshot, kind: &Kind, denial: &Denial, effort: &mut Effort) -> Option<String> {
    let Refusal::Policy(direction) = kind.refusal else { return None };
    let ends = [denial.source.address, denial.destination.address];
    let packet = first_packet(kind.refusal, ends, kind.payload)?;
    let known = Known { pods: &snapshot.pods, strangers: &[], namespaces: &snapshot.namespaces };
    let found = policy::nearest(&snapshot.enforced.as_ref()?.ir, &known, direction, &packet, effort)?;
    (!found.partial).then(|| NearRule::of(&found, direction).in_words(direction))
}

/// A first packet of this kind; `None` where policies and gate are not what refused it.
fn first_packet(refusal: Refusal, ends: [IpAddr; 2], payload: Payload) -> Option<Packet> {
    match refusal {
        Refusal::Policy(_) | Refusal::Gate(_) => {}
        Refusal::Source | Refusal::PortSource | Refusal::Destination | Refusal::LinkLocal | Refusal::Tag => {
            return None;
        }
    }
    let protocol = match payload {
        Payload::Ports { protocol, to, .. } => {
            let known = Protocol::ALL.into_iter().find(|known| known.number() == protocol)?;
            PacketProtocol::Port(known, to)
        }
        // Policies see all that has no ports alike.
        Payload::Icmp { .. } | Payload::Other { .. } => PacketProtocol::Echo,
    };
    let [source, destination] = ends;
    Some(Packet { source, destination, protocol })
}

impl Asked {
    fn is_about(&self, denial: &Denial) -> bool {
        let ends = || [&denial.source.pod, &denial.destination.pod].into_iter().flatten();
        let is_of = |namespace: &str, pod: &str| pod.split_once('/').is_some_and(|(own, _)| own == namespace);
        self.pod.as_ref().is_none_or(|pod| ends().any(|end| end == pod))
            && self.namespace.as_ref().is_none_or(|namespace| ends().any(|end| is_of(namespace, end)))
    }
}
