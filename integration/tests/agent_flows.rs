//! `postern flows` beside a running agent: real flows of a node's pods, with names, reasons and counters.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use integration::agent::{self, nft};
use integration::node::Node;
use integration::scene::{pod, policy};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use lab::{Netns, isolated};
use serde_json::{Value, json};

/// The pods, the node of each by the API, and the last part of its addresses.
const PODS: [(&str, &str, u8); 4] =
    [("shop/web", "node-1", 10), ("shop/db-0", "node-1", 11), ("lone/guest", "node-1", 12), ("shop/far", "node-2", 13)];
const SERVICES: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 15432, targetPort: 5432}]}
";
/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who may reach the database, and where.
fn ports(list: &str) -> String {
    let from = "[{podSelector: {matchLabels: {app: web}}}]";
    policy(
        "shop/db",
        &format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: {from}, ports: {list}}}]}}"),
    )
}

fn addresses(last: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, 244, 0, last]), format!("fd00:244::{last:x}").parse().unwrap()]
}

fn address(name: &str, is_v6: bool) -> IpAddr {
    let (_, _, last) = PODS.into_iter().find(|(pod, _, _)| *pod == name).unwrap();
    addresses(last)[usize::from(is_v6)]
}

fn netns(node: &Node, name: &str) -> Netns {
    node.lab.pod(name).unwrap().clone()
}

/// A connection of a pod, and the other end of it.
fn connect(node: &Node, client: &str, server: &str, port: u16, to: SocketAddr) -> (TcpStream, TcpStream) {
    let listener =
        netns(node, server).run(|| TcpListener::bind((address(server, to.is_ipv6()), port))).unwrap().unwrap();
    let stream = netns(node, client).run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    (stream, listener.accept().unwrap().0)
}

/// A datagram of a pod over IPv6, and the answer to it.
fn exchange(node: &Node, client: &str, server: &str, port: u16) -> (UdpSocket, UdpSocket) {
    let bound =
        |pod: &str, port: u16| netns(node, pod).run(|| UdpSocket::bind((address(pod, true), port))).unwrap().unwrap();
    let (server_end, client_end) = (bound(server, port), bound(client, 0));
    server_end.set_read_timeout(Some(PATIENCE)).unwrap();
    client_end.set_read_timeout(Some(PATIENCE)).unwrap();
    client_end.send_to(b"?", (address(server, true), port)).unwrap();
    let (_, from) = server_end.recv_from(&mut [0; 8]).unwrap();
    server_end.send_to(b"!", from).unwrap();
    client_end.recv_from(&mut [0; 8]).unwrap();
    (client_end, server_end)
}

fn set_sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"), value).unwrap();
}

fn command(kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(agent::binary().unwrap());
    command.args(["flows", "--kubeconfig", kubeconfig.to_str().unwrap()]).args(arguments).stdin(Stdio::null());
    command
}

/// Exit status, standard output, standard error.
fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The flows that a filter leaves, by their server's port, and what is said besides.
fn flows(kubeconfig: &Path, filter: &[&str]) -> (Vec<Value>, String) {
    let (status, lines, told) = run(command(kubeconfig, &[&["-o", "json"], filter].concat()));
    assert_eq!(status, 0, "{filter:?}: {told}");
    let mut flows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    flows.sort_by_key(|flow| flow["server"]["port"].as_u64());
    (flows, told)
}

fn ports_of(kubeconfig: &Path, filter: &[&str]) -> Vec<u64> {
    flows(kubeconfig, filter).0.iter().map(|flow| flow["server"]["port"].as_u64().unwrap()).collect()
}

/// Makes the pods, and gives the address of the Service.
async fn cluster(node: &mut Node) -> IpAddr {
    node.api.create_namespace("shop", &[]).await.unwrap();
    node.api.create_namespace("lone", &[]).await.unwrap();
    let labels = |name| match name {
        "shop/db-0" => "app: db",
        "lone/guest" => "app: guest",
        _ => "app: web",
    };
    let pods: String = PODS.iter().map(|(name, node, _)| pod(name, node, labels(name), "")).collect();
    node.api
        .apply(&(pods + SERVICES + &ports("[{port: 5432}, {port: 5433}, {port: 5353, protocol: UDP}]")))
        .await
        .unwrap();
    for (name, _, last) in PODS {
        node.attach(name, &addresses(last)).await.unwrap();
        node.report(name).await.unwrap();
    }
    // The address of the Service leads to the pod, as kube-proxy does it.
    let services: Api<Service> = Api::namespaced(node.api.client(), "shop");
    let service = services.get("db").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let server = address("shop/db-0", false);
    let rule = format!("ip daddr {service} tcp dport 15432 dnat to {server}:5432");
    nft(&["add", "table", "ip", "proxy"]).unwrap();
    nft(&["add", "chain", "ip", "proxy", "services", "{ type nat hook prerouting priority -100; }"]).unwrap();
    nft(&["add", "rule", "ip", "proxy", "services", &rule]).unwrap();
    // The policy is there with the last of its pods. A probe would leave flows of its own.
    node.agent.until_table(|table| table.contains("5433") && table.contains("10.244.0.13")).await.unwrap();
    service.parse().unwrap()
}

#[test]
fn flows_are_shown_with_ends_and_reasons() {
    isolated(async {
        let test = async |mut node: Node| {
            let service = cluster(&mut node).await;
            let kubeconfig = node.api.kubeconfig();
            let (web, db, far, guest) = ("shop/web", "shop/db-0", "shop/far", "lone/guest");
            let (v4, v6) = (address(db, false), address(db, true));

            // Before anything is counted.
            set_sysctl("acct", "0");
            set_sysctl("timestamp", "0");
            let _guest = connect(&node, guest, web, 8080, (address(web, true), 8080).into());
            let (lines, told) = flows(&kubeconfig, &["--port", "8080"]);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert_eq!((&lines[0]["packets"], &lines[0]["age_seconds"]), (&Value::Null, &Value::Null), "{lines:?}");
            assert!(told.contains("net.netfilter.nf_conntrack_acct is off"), "{told}");
            assert!(told.contains("net.netfilter.nf_conntrack_timestamp is off"), "{told}");

            set_sysctl("acct", "1");
            set_sysctl("timestamp", "1");
            let _through = connect(&node, web, db, 5432, (service, 15432).into());
            let _datagrams = exchange(&node, web, db, 5353);
            let _closing = connect(&node, far, db, 5433, (v4, 5433).into());
            node.api.apply(&ports("[{port: 5432}, {port: 5353, protocol: UDP}]")).await.unwrap();
            node.agent.until_table(|table| !table.contains("5433")).await.unwrap();

            let (lines, told) = flows(&kubeconfig, &["--policy", "shop/db"]);
            let [datagrams, through, closing] = &lines[..] else { panic!("{lines:#?}") };
            assert_eq!(told, "", "all is known");

            assert_eq!(datagrams["protocol"], "UDP");
            assert_eq!(datagrams["client"]["address"], json!(address(web, true)));
            assert_eq!(datagrams["server"], json!({"pod": db, "address": v6, "port": 5353}));
            assert_eq!((&datagrams["sent_to"], &datagrams["replied"]), (&Value::Null, &json!(true)));
            assert_eq!(datagrams["packets"], json!({"from_client": 1, "from_server": 1}));
            // An IPv6 header has 40 bytes, that of UDP has 8.
            assert_eq!(datagrams["bytes"], json!({"from_client": 49, "from_server": 49}));
            assert_eq!(datagrams["ingress"]["rule"], "shop/db ingress[0]");

            assert_eq!((&through["protocol"], &through["state"]), (&json!("TCP"), &json!("ESTABLISHED")));
            assert_eq!(through["client"]["pod"], web);
            assert_eq!(through["server"], json!({"pod": db, "address": v4, "port": 5432}));
            assert_eq!(through["sent_to"], json!({"service": "shop/db", "address": service, "port": 15432}));
            assert_eq!((&through["allowed"], &through["assured"]), (&json!(true), &json!(true)));
            assert_eq!(through["egress"], json!({"allowed": true, "isolated_by": [], "rule": null}));
            let allowed = json!({"allowed": true, "isolated_by": ["shop/db"], "rule": "shop/db ingress[0]"});
            assert_eq!(through["ingress"], allowed);
            assert!(through["packets"]["from_client"].as_u64() >= Some(2), "{through}");
            assert!(through["age_seconds"].is_u64() && through["timeout_seconds"].as_u64() > Some(60), "{through}");

            // It went on when the policy changed.
            assert_eq!((&closing["client"]["pod"], &closing["allowed"]), (&json!(far), &json!(false)));
            assert_eq!(closing["egress"]["elsewhere"], "node-2");
            assert_eq!(closing["ingress"], json!({"allowed": false, "isolated_by": ["shop/db"], "rule": null}));

            // Filters, alone and together.
            assert_eq!(ports_of(&kubeconfig, &["--refused"]), [5433]);
            assert_eq!(ports_of(&kubeconfig, &["--pod", guest]), [8080]);
            assert_eq!(ports_of(&kubeconfig, &["-n", "lone", "--pod", "guest"]), [8080]);
            assert_eq!(ports_of(&kubeconfig, &["--pod", far]), [5433], "a pod of another node");
            assert_eq!(ports_of(&kubeconfig, &["-n", "lone"]), [8080]);
            assert_eq!(ports_of(&kubeconfig, &["-n", "lone", "--pod", web]), [8080], "each at an end");
            assert_eq!(ports_of(&kubeconfig, &["-n", "lone", "--pod", db]).len(), 0);
            assert_eq!(ports_of(&kubeconfig, &["-n", "shop", "--policy", "db", "--protocol", "tcp"]), [5432, 5433]);
            assert_eq!(ports_of(&kubeconfig, &["--port", "15432"]), [5432], "the port of the Service");
            assert_eq!(ports_of(&kubeconfig, &["--port", "5432"]), [5432], "the port behind it");
            assert_eq!(ports_of(&kubeconfig, &["--protocol", "udp"]), [5353]);
            assert_eq!(ports_of(&kubeconfig, &["--refused", "--pod", web]).len(), 0);

            // For people; and without the right to read Services.
            let (_, text, _) = run(command(&kubeconfig, &["--port", "15432"]));
            let start = format!(
                "allowed TCP {web}:{} -> svc/shop/db:15432 -> {db}:5432, ESTABLISHED, assured, ",
                through["client"]["port"]
            );
            assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
            let of_agent = node.api.kubeconfig_for_service_account("kube-system", "postern").await.unwrap();
            let (status, text, told) = run(command(&of_agent, &["--port", "15432"]));
            assert!(status == 0 && text.contains(&format!(" -> {service}:15432 -> {db}:5432")), "{text}{told}");
            assert!(
                told.contains("note: Services are shown by their addresses: it takes the right to list services"),
                "{told}"
            );
        };
        Node::run_with(&["--established=keep"], test).await.unwrap();
    });
}

#[test]
fn what_cannot_be_shown_is_said() {
    isolated(async {
        let test = async |mut node: Node| {
            cluster(&mut node).await;
            let kubeconfig = node.api.kubeconfig();
            for (arguments, expected) in [
                (&["--pod", "shop/db-1"][..], "there is no pod shop/db-1; did you mean shop/db-0?"),
                (&["--pod", "shop/db/0"], "\"shop/db/0\" is not the namespace/name of a pod"),
                (&["-n", "shpo"], "the agent of this node knows no pod with an address in namespace shpo"),
                (&["-n", "shops"], "in namespace shops; did you mean shop?"),
                (
                    &["--policy", "shop/dc"],
                    "there is no policy shop/dc that selects a pod of this node; did you mean shop/db?",
                ),
                (&["--protocol", "tpc"], "not a protocol (TCP, UDP, SCTP, ICMP, or a number up to 255)"),
                (&["--port", "0"], "invalid value '0'"),
                (&["--admin-address", "127.0.0.1:1"], "cannot ask the agent at 127.0.0.1:1: "),
            ] {
                let (status, lines, told) = run(command(&kubeconfig, arguments));
                assert!(
                    status == 2 && told.contains(expected) && lines.is_empty(),
                    "{arguments:?}: {status} {told}{lines}"
                );
            }
            // In a user namespace of its own a process has no rights in the node's network namespace.
            let mut unprivileged = Command::new("unshare");
            unprivileged.arg("--user").arg(agent::binary().unwrap()).arg("flows");
            let (status, _, told) = run(unprivileged);
            assert!(status == 2 && told.contains("cannot read connection tracking: it takes CAP_NET_ADMIN"), "{told}");
            set_sysctl("events", "0");
            let (status, _, told) = run(command(&kubeconfig, &["--watch"]));
            assert!(status == 2 && told.contains("net.netfilter.nf_conntrack_events is 0"), "{told}");
        };
        Node::run(test).await.unwrap();
    });
}

/// A running `postern flows --watch`. It is killed when it is dropped.
struct Watch {
    process: Child,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(kubeconfig: &Path, filter: &[&str]) -> Watch {
        let mut command = command(kubeconfig, &[&["--watch", "-o", "json"], filter].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if sender.send(serde_json::from_str(&line.unwrap()).unwrap()).is_err() {
                    return;
                }
            }
        });
        Watch { process, lines }
    }

    /// The next line, while something is done again and again.
    fn next(&self, mut meanwhile: impl FnMut()) -> Value {
        for _ in 0..200 {
            meanwhile();
            if let Ok(line) = self.lines.recv_timeout(PATIENCE / 200) {
                return line;
            }
        }
        panic!("nothing is told");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn flows_are_told_as_they_begin_and_end() {
    isolated(async {
        let test = async |mut node: Node| {
            cluster(&mut node).await;
            let kubeconfig = node.api.kubeconfig();
            let watch = Watch::start(&kubeconfig, &["--pod", "lone/guest"]);
            // What has begun before somebody listens is not told, so it begins again and again.
            let told = watch.next(|| drop(exchange(&node, "lone/guest", "shop/web", 4000)));
            assert_eq!(
                (&told["event"], &told["protocol"], &told["allowed"]),
                (&json!("new"), &json!("UDP"), &json!(true))
            );
            assert_eq!((&told["client"]["pod"], &told["server"]["pod"]), (&json!("lone/guest"), &json!("shop/web")));
            // Of others nothing is told.
            let _others = exchange(&node, "shop/far", "shop/web", 4001);
            // A flow whose time is over ends when somebody looks.
            set_sysctl("udp_timeout", "0");
            set_sysctl("udp_timeout_stream", "0");
            let brief = exchange(&node, "lone/guest", "shop/web", 4002);
            let port = brief.0.local_addr().unwrap().port();
            let mut seen = Vec::new();
            while !seen.contains(&json!("ended")) {
                let told = watch.next(|| drop(flows(&kubeconfig, &[])));
                assert_eq!(told["client"]["pod"], "lone/guest", "{told}");
                if told["client"]["port"] == port {
                    seen.push(told["event"].clone());
                }
            }
            assert_eq!(seen, ["new", "ended"]);
        };
        Node::run(test).await.unwrap();
    });
}
