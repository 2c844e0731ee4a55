//! Policies drawn at random.
//!
//! Whatever is drawn, it never lets in whom the soak holds for forbidden: peers are named by labels that these do not
//! have and by blocks that they are not in, and where everybody is let in, it is not at the port that they try.

use fastrand::Rng;
use serde_json::{Value, json};

/// The values of the label `app`.
pub(super) const APPS: [&str; 5] = ["api", "batch", "cache", "db", "edge"];
/// The values of the label `team` of namespaces.
pub(super) const TEAMS: [&str; 3] = ["amber", "blue", "cyan"];
/// Rules of a policy that is over every budget.
const TOO_MANY_RULES: u16 = 2_500;

/// The `spec` of a policy as people write it, now and then of a large one.
pub(super) fn policy(rng: &mut Rng) -> Value {
    let mut spec = json!({"podSelector": pod_selector(rng)});
    if rng.u8(..4) > 0 {
        spec["ingress"] = rules(rng, "from");
    }
    // One that speaks of neither direction denies what comes in.
    if rng.u8(..3) == 0 {
        spec["egress"] = rules(rng, "to");
        spec["policyTypes"] =
            if spec.get("ingress").is_some() { json!(["Ingress", "Egress"]) } else { json!(["Egress"]) };
    }
    spec
}

/// One that costs too much: its pods are isolated, and it allows nothing.
pub(super) fn bomb(rng: &mut Rng) -> Value {
    let rule = |port: u16| json!({"from": [peer_of(APPS[usize::from(port) % APPS.len()])], "ports": [{"port": port}]});
    let rules: Vec<Value> = (1_000..1_000 + TOO_MANY_RULES).map(rule).collect();
    json!({"podSelector": pod_selector(rng), "ingress": rules})
}

/// One that the server takes, and that means nothing or the same thing twice: what is broken beyond that it refuses.
pub(super) fn odd(rng: &mut Rng) -> Value {
    let all = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.50.0.0/16", "10.50.0.0/16"]}});
    let ports = json!([{"port": "nobody-has-it"}, {"port": 7, "endPort": 7}, {"port": 7}, {"port": 7}]);
    json!({
        "podSelector": pod_selector(rng),
        "policyTypes": ["Ingress", "Ingress"],
        "ingress": [{"from": [all, all, peer(rng)], "ports": ports}, {"from": [all, {"ipBlock": {"cidr": "::/0"}}], "ports": ports}],
        "egress": [{}],
    })
}

fn pod_selector(rng: &mut Rng) -> Value {
    match rng.u8(..4) {
        0 => json!({}),
        1 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app(rng)]}]}),
        _ => json!({"matchLabels": {"app": app(rng)}}),
    }
}

fn rules(rng: &mut Rng, peers_name: &str) -> Value {
    let is_large = rng.u8(..20) == 0;
    let rules = (0..rng.usize(0..3)).map(|_| {
        let mut rule = json!({});
        let how_many = if is_large { 60 } else { rng.usize(0..4) };
        let peers: Vec<Value> = (0..how_many).map(|_| peer(rng)).collect();
        if !peers.is_empty() {
            rule[peers_name] = json!(peers);
        }
        // A rule without ports would let everybody in where it has no peers.
        if peers.is_empty() || rng.bool() {
            let how_many = if is_large { 30 } else { rng.usize(1..4) };
            rule["ports"] = (0..how_many).map(|_| port(rng)).collect();
        }
        rule
    });
    rules.collect()
}

fn peer(rng: &mut Rng) -> Value {
    let team = json!({"matchLabels": {"team": rng.choice(TEAMS)}});
    match rng.u8(..6) {
        0 | 1 => peer_of(app(rng)),
        2 => json!({"namespaceSelector": team}),
        3 => json!({"namespaceSelector": team, "podSelector": {"matchLabels": {"app": app(rng)}}}),
        4 => json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app(rng)}}}),
        _ => {
            // The first one of its block, as the server wants it.
            let (third, length) = (4 * rng.u8(..4), rng.u8(22..=26));
            json!({"ipBlock": {"cidr": format!("10.50.{third}.0/{length}"), "except": [format!("10.50.{third}.{}/32", rng.u8(..64))]}})
        }
    }
}

fn peer_of(app: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}})
}

/// Never the port of the soak's own packets, see [`PORT`](super::traffic::PORT).
fn port(rng: &mut Rng) -> Value {
    let protocol = rng.choice(["TCP", "UDP", "SCTP"]);
    let first = rng.u16(1_000..9_000);
    match rng.u8(..5) {
        0 => json!({"port": "web"}),
        1 => json!({"port": "dns", "protocol": "UDP"}),
        2 => json!({"port": first, "endPort": first + rng.u16(..500), "protocol": protocol}),
        _ => json!({"port": first, "protocol": protocol}),
    }
}

fn app(rng: &mut Rng) -> &'static str {
    rng.choice(APPS).expect("there are apps")
}
