//! What is printed of a flow.

use netlink::conntrack::{Flow, Tuple};

use super::*;

fn side(isolated_by: &[&str], rule: Option<&str>) -> SideAnswer {
    SideAnswer {
        allowed: isolated_by.is_empty() || rule.is_some(),
        isolated_by: isolated_by.iter().map(|policy| (*policy).to_owned()).collect(),
        rule: rule.map(str::to_owned),
        quarantined: Vec::new(),
        elsewhere: None,
        unanswered: None,
        refusal: None,
        refused_by: None,
        nearest: None,
    }
}

fn tuple(source: &str, destination: &str, ports: Option<(u16, u16)>) -> Tuple {
    Tuple { source: source.parse().unwrap(), destination: destination.parse().unwrap(), ports }
}

/// A pod that asks a Service, and is answered by another pod.
fn through_a_service() -> (Entry, Judged) {
    let flow = Flow {
        protocol: 6,
        original: tuple("10.0.0.9", "10.96.0.10", Some((40112, 15432))),
        reply: tuple("10.0.0.1", "10.0.0.9", Some((5432, 40112))),
        zone: 0,
        tcp_state: Some(3),
    };
    let entry = Entry {
        flow,
        state: Some("ESTABLISHED"),
        is_replied: true,
        is_assured: true,
        counts: Some([Count { packets: 12, bytes: 1200 }, Count { packets: 10, bytes: 5000 }]),
        began: Some(5_000_000_000),
        timeout: Some(431_999),
    };
    let judged = Judged {
        index: 0,
        client: Some(Owner::Pod("shop/web".to_owned())),
        server: Some(Owner::Pod("shop/db-0".to_owned())),
        egress: side(&[], None),
        ingress: side(&["shop/db"], Some("shop/db ingress[0]")),
    };
    (entry, judged)
}

fn line(change: Option<Change>, (entry, judged): (Entry, Judged)) -> Line {
    let mut names = Names::fixed(&[("10.96.0.10", "shop/db")], &[("192.0.2.2", "node-2")]);
    Line::new(change, &entry, judged, &mut names, 197_000_000_000)
}

#[test]
fn a_line_of_text_has_both_ends_the_reasons_and_what_is_counted() {
    assert_eq!(
        line(None, through_a_service()).to_string(),
        "allowed TCP shop/web:40112 -> svc/shop/db:15432 -> shop/db-0:5432, ESTABLISHED, assured, 12+10 packets, \
         1200+5000 bytes, age 3m12s, 4d23h left; egress: not isolated; ingress: isolated by shop/db; allowed by shop/db \
         ingress[0]"
    );
    let (mut entry, mut judged) = through_a_service();
    entry.flow.original.destination = "10.0.0.1".parse().unwrap();
    entry.flow.original.ports = Some((40112, 5432));
    entry = Entry { counts: None, began: None, timeout: None, is_replied: false, is_assured: false, ..entry };
    judged.ingress = side(&["shop/db"], None);
    judged.egress.elsewhere = Some("node-2".to_owned());
    assert_eq!(
        line(Some(Change::Ended), (entry, judged)).to_string(),
        "ended refused TCP shop/web:40112 -> shop/db-0:5432, ESTABLISHED, unreplied; egress: decided on node node-2, \
         whose agent was not asked; ingress: isolated by shop/db; no rule allows it"
    );
}

#[test]
fn whoever_has_no_name_is_an_address() {
    let of = |client: &str, server: &str, ports: Option<(u16, u16)>, protocol| {
        let back = ports.map(|(client, server)| (server, client));
        let flow = Flow {
            protocol,
            original: tuple(client, server, ports),
            reply: tuple(server, client, back),
            zone: 7,
            tcp_state: None,
        };
        let (entry, judged) = through_a_service();
        let entry = Entry { flow, counts: None, began: None, timeout: None, state: None, is_assured: false, ..entry };
        let judged = Judged { client: None, server: None, ingress: side(&[], None), ..judged };
        line(None, (entry, judged)).to_string()
    };
    let rest = "; egress: not isolated; ingress: not isolated";
    assert_eq!(
        of("2001:db8::1", "fd00::1", Some((4000, 53)), 17),
        format!("allowed UDP [2001:db8::1]:4000 -> [fd00::1]:53, zone 7{rest}")
    );
    assert_eq!(of("192.0.2.2", "10.0.0.1", None, 1), format!("allowed ICMP node/node-2 -> 10.0.0.1, zone 7{rest}"));
}

/// Programs rely on it: what is here is added to, and not changed.
#[test]
fn the_schema_of_a_json_line() {
    assert_eq!(
        serde_json::to_string(&line(Some(Change::Begun), through_a_service())).unwrap(),
        "{\"event\":\"new\",\"protocol\":\"TCP\",\
         \"client\":{\"pod\":\"shop/web\",\"address\":\"10.0.0.9\",\"port\":40112},\
         \"server\":{\"pod\":\"shop/db-0\",\"address\":\"10.0.0.1\",\"port\":5432},\
         \"sent_to\":{\"service\":\"shop/db\",\"address\":\"10.96.0.10\",\"port\":15432},\
         \"allowed\":true,\
         \"egress\":{\"allowed\":true,\"isolated_by\":[],\"rule\":null},\
         \"ingress\":{\"allowed\":true,\"isolated_by\":[\"shop/db\"],\"rule\":\"shop/db ingress[0]\"},\
         \"state\":\"ESTABLISHED\",\"replied\":true,\"assured\":true,\
         \"packets\":{\"from_client\":12,\"from_server\":10},\"bytes\":{\"from_client\":1200,\"from_server\":5000},\
         \"age_seconds\":192,\"timeout_seconds\":431999}"
    );
}

#[test]
fn spans_of_time_have_two_units() {
    let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400, 431_999].map(|seconds| Span(seconds).to_string());
    assert_eq!(spans, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "4d23h"]);
}
