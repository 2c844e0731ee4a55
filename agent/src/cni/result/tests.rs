//! What files of all versions say, and what is said of broken ones.

use serde_json::json;

use super::*;

const NAME: &str = "cbr0-c1-eth0";
const UID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/// A file of the pod `a/web`, as libcni writes it.
fn file(result: Value) -> Value {
    json!({
        "kind": "cniCacheV1", "containerId": "c1", "config": "eyJjbmlWZXJzaW9uIjoiMS4wLjAifQ==", "ifName": "eth0",
        "networkName": "cbr0", "netns": "/var/run/netns/cni-1",
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "web"],
                    ["K8S_POD_INFRA_CONTAINER_ID", "c1"], ["K8S_POD_UID", UID]],
        "capabilityArgs": {"portMappings": []}, "result": result,
    })
}

fn read(file: &Value) -> Result<Option<Recorded>, Fault> {
    parse(NAME, file.to_string().as_bytes())
}

/// The addresses, the links and the link to the pod, as text.
#[track_caller]
fn of(result: Value) -> (Vec<String>, Vec<String>, Option<String>) {
    let recorded = read(&file(result)).unwrap().unwrap();
    let addresses = recorded.sandbox.addresses.iter().map(ToString::to_string).collect();
    let links = recorded.links.iter().map(ToString::to_string).collect();
    (addresses, links, recorded.sandbox.link.map(|link| link.to_string()))
}

/// What the plugin `bridge` says, with a shaper behind it.
fn of_bridge(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"},
            {"name": "veth1", "mac": "00:11:22:33:44:66"},
            {"name": "eth0", "mac": "00:11:22:33:44:77", "sandbox": "/var/run/netns/cni-1"},
            {"name": "bwp1"},
        ],
        "ips": [
            {"version": "6", "interface": 2, "address": "fd00::5/64", "gateway": "fd00::1"},
            {"version": "4", "interface": 2, "address": "10.244.1.5/24", "gateway": "10.244.1.1"},
            {"interface": 0, "address": "10.244.1.1/24"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {},
    })
}

#[test]
fn a_file_names_the_pod_its_addresses_and_its_link() {
    let recorded = read(&file(of_bridge("1.0.0"))).unwrap().unwrap();
    assert_eq!(recorded.sandbox.pod.to_string(), "a/web");
    assert_eq!(recorded.sandbox.uid, PodUid::parse(UID));
}

#[test]
fn all_versions_are_read() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.2.0"] {
        let (addresses, links, link) = of(of_bridge(version));
        assert_eq!(addresses, ["10.244.1.5", "fd00::5"], "{version}");
        assert_eq!(links, ["cni0", "veth1", "bwp1"], "{version}");
        assert_eq!(link.as_deref(), Some("veth1"), "{version}");
    }
    let old = |version: Value| json!({"cniVersion": version, "ip4": {"ip": "10.244.1.5/24", "gateway": "10.244.1.1"}, "ip6": {"ip": "fd00::5/64"}});
    for version in [json!("0.1.0"), json!("0.2.0"), json!(""), Value::Null] {
        let (addresses, links, link) = of(old(version));
        assert_eq!((addresses.len(), links.len(), link), (2, 0, None));
    }
    // Plugins that leave out what they may.
    let (addresses, links, link) = of(json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/32"}]}));
    assert_eq!((addresses, links.len(), link), (vec!["10.0.0.1".to_owned()], 0, None));
}

#[test]
fn what_is_nothing_to_us_is_passed_over() {
    let mut further = file(of_bridge("1.0.0"));
    (further["ifName"], further["networkName"]) = (json!("net1"), json!("macvlan"));
    assert_eq!(parse("macvlan-c1-net1", further.to_string().as_bytes()), Ok(None), "a further network");
    let mut container = file(json!({}));
    container["cniArgs"] = json!([["IgnoreUnknown", "1"]]);
    assert_eq!(read(&container), Ok(None), "a container that is no pod's");
    container.as_object_mut().unwrap().remove("cniArgs");
    assert_eq!(read(&container), Ok(None));
}

#[test]
fn what_is_wrong_is_said() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut file = file(of_bridge("1.0.0"));
        change(&mut file);
        read(&file).unwrap_err().to_string()
    };
    let ips = |address: Value| with(&|file| file["result"]["ips"] = json!([{"interface": 2, "address": address}]));
    for (told, due) in [
        (with(&|file| file["kind"] = json!("cniCacheV2")), "is not of the kind cniCacheV1"),
        (
            with(&|file| file["containerId"] = json!("c2")),
            "has not the name that belongs to what is in it, cbr0-c2-eth0",
        ),
        (
            with(&|file| file["cniArgs"] = json!([["K8S_POD_NAME", "web"]])),
            "does not say which pod it is of: K8S_POD_NAMESPACE is missing, or is none",
        ),
        (
            with(&|file| file["cniArgs"][4] = json!(["K8S_POD_UID", "../.."])),
            "does not say which pod it is of: K8S_POD_UID is missing, or is none",
        ),
        (with(&|file| file["result"] = Value::Null), "has no addresses"),
        (
            with(&|file| file["result"]["cniVersion"] = json!("2.0.0")),
            "is of version 2.0.0 of CNI, and 0.1 to 1.x are known",
        ),
        (
            with(&|file| file["result"]["cniVersion"] = json!(["1.0.0"])),
            "is of version [\"1.0.0\"] of CNI, and 0.1 to 1.x are known",
        ),
        (with(&|file| file["result"]["ips"] = json!("all")), "has no addresses"),
        (ips(json!("10.0.0.1")), "\"10.0.0.1\" is no address of a pod"),
        (ips(json!("10.0.0.1/33")), "\"10.0.0.1/33\" is no address of a pod"),
        (ips(json!("0.0.0.0/0")), "\"0.0.0.0/0\" is no address of a pod"),
        (ips(json!("127.0.0.1/8")), "\"127.0.0.1/8\" is no address of a pod"),
        (ips(json!("fe80::1/64")), "\"fe80::1/64\" is no address of a pod"),
        (ips(json!("ff02::1/64")), "\"ff02::1/64\" is no address of a pod"),
        (ips(json!("::ffff:10.0.0.1/128")), "\"::ffff:10.0.0.1/128\" is no address of a pod"),
        (ips(json!(7)), "7 is no address of a pod"),
        (
            with(&|file| {
                file["result"]["ips"] = (0..17).map(|n| json!({"address": format!("10.0.0.{n}/8")})).collect()
            }),
            "has more than 16 addresses",
        ),
        (
            with(&|file| file["result"]["interfaces"][1]["name"] = json!("../../etc/passwd")),
            "\"../../etc/passwd\" is no name of a link",
        ),
    ] {
        assert_eq!(told, due);
    }
    assert_eq!(parse(NAME, b" \n"), Err(Fault::Empty));
    assert_eq!(parse(NAME, b"[]"), Err(Fault::Kind));
}

#[test]
fn what_is_cut_anywhere_or_odd_is_refused() {
    let whole = file(of_bridge("1.0.0")).to_string();
    for cut in 0..whole.len() {
        assert!(parse(NAME, &whole.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse(NAME, deep.as_bytes()).is_err());
    assert!(parse(NAME, b"\xff\xfe\x00").is_err());
    // Any byte another one: whatever comes of it is no panic.
    for at in 0..whole.len() {
        for byte in [0, b'"', b'9', b'{', 0xff] {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] = byte;
            let _ = parse(NAME, &bytes);
        }
    }
}
