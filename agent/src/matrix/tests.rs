//! What people read.

use std::collections::BTreeSet;

use compiler::nft::Deny;

use super::changes::changes;
use super::*;
use crate::files::{Loaded, load};
use crate::model::Openings;

/// Two Deployments and a StatefulSet in one namespace, and one in another; nobody is isolated.
pub(super) const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {replicas: 2, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: m,
  ports: [{name: sql, containerPort: 5432}]}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: ops}
spec: {selector: {matchLabels: {app: log}}, template: {metadata: {labels: {app: log}}}}
";

/// Only `api` may ask the database, and a backup from outside.
pub(super) const CLOSED: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: sql}]},
  {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}
";

pub(super) fn model(yaml: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, yaml).unwrap();
    let Loaded { objects, without_address, unready, workloads, errors, findings, .. } = load(&[file]);
    assert!(errors.is_empty() && findings.is_empty(), "{errors:?} {findings:?}");
    let reserved = BTreeSet::new();
    let openings = Openings { without_address: &without_address, reserved: &reserved, unready: &unready };
    Model::with(&objects, &openings, workloads, Deny::default())
}

fn read(text: &str) -> Filter {
    Filter::Of(Named::read(text).unwrap())
}

#[test]
fn a_small_matrix_is_a_table() {
    let shop = model(&format!("{SHOP}{CLOSED}"));
    let matrix = Matrix::of(&[&shop], &read("sts/shop/db")).unwrap();
    let text = text::matrix(&matrix, false);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["deploy/shop/api", ".", ".", ".", "5432/TCP", ".", "."]), "{text}");
    assert!(rows.contains(&vec!["deploy/shop/web", ".", ".", ".", "-", ".", "."]), "{text}");
    assert!(rows.contains(&vec!["sts/shop/db", "all", "all", "all", "-", "all", "all"]), "{text}");
    assert!(rows.contains(&vec!["192.0.2.0/24", ".", ".", ".", "all", ".", "."]), "{text}");
}

#[test]
fn a_large_matrix_is_a_list_of_servers() {
    let many: String = (0..8)
        .map(|number| {
            let name = format!("job-{number}");
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: jobs, labels: {{app: {name}}}}}\n"
            )
        })
        .collect();
    let labels = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: job, namespace: jobs}\nspec: \
                  {podSelector: {matchLabels: {app: job-0}}, ingress: [{from: [{namespaceSelector: {matchLabels: \
                  {kubernetes.io/metadata.name: shop}}}]}]}\n";
    let matrix = Matrix::of(&[&model(&format!("{SHOP}{many}{labels}{CLOSED}"))], &Filter::All).unwrap();
    let text = text::matrix(&matrix, false);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "namespace jobs", "{text}");
    assert!(
        text.contains("  to pod/jobs/job-0\n    all      from ns/shop\n    nothing  from everybody else\n"),
        "{text}"
    );
    assert!(text.contains("\n  to deploy/shop/web (3 pods)\n    all  from everybody\n"), "{text}");
    assert!(text.contains("  to sts/shop/db (2 pods)\n    5432/TCP  from deploy/shop/api\n    all       from 192.0.2.0/24\n    nothing   from everybody else\n"), "{text}");
}

#[test]
fn changes_are_told_by_server_or_by_client() {
    let (open, closed) = (model(SHOP), model(&format!("{SHOP}{CLOSED}")));
    let told = |before: &Model, after: &Model| {
        let matrix = Matrix::of(&[before, after], &Filter::All).unwrap();
        let changes = changes(&matrix);
        (text::changes(&matrix, &changes), text::markdown(&matrix, &changes))
    };
    let (text, markdown) = told(&open, &closed);
    let rows = "    all but 5432/TCP  from deploy/shop/api\n    all               from sts/shop/db, deploy/shop/web, ds/ops/log, outside\n";
    assert!(text.starts_with("closes\n  to sts/shop/db\n"), "{text}");
    assert!(text.contains("all but 5432/TCP  from deploy/shop/api") && !text.contains("192.0.2.0/24"), "{text}{rows}");
    assert!(markdown.contains("**Closes**\n\n| to | ports | from |"), "{markdown}");
    assert!(told(&closed, &open).0.starts_with("opens\n"));
    assert_eq!(
        told(&open, &open),
        (
            String::new(),
            "### What the policies change\n\nNothing: the same connections are open before and after.\n".into()
        )
    );
    // What one client may not do any more is one block, and not one for each server.
    let egress = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec: \
                  {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}\n";
    let (text, _) = told(&open, &model(&format!("{SHOP}{egress}")));
    assert_eq!(text, "closes\n  from deploy/shop/web\n    all  to everybody\n");
    let fewer = SHOP.split("---\napiVersion: apps/v1\nkind: DaemonSet").next().unwrap();
    let (text, _) = told(&open, &model(fewer));
    assert!(text.ends_with("goes ds/ops/log\n"), "{text}");
}

/// A pod with the label `app`, and what else of its metadata and status.
fn pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: t, labels: {{app: {app}}}}}\nstatus: {{podIP: {ip}}}\n"
    )
}

/// A policy of the pods with this label.
fn ingress(app: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {app}, namespace: t}}\nspec: {{podSelector: \
         {{matchLabels: {{app: {app}}}}}, ingress: [{rules}]}}\n"
    )
}

#[test]
fn pods_that_stay_keep_their_name_when_another_goes() {
    let closed = ingress("c", "{ports: [{port: 80}]}");
    let [a, b, c] = [("a", "x", "10.0.0.1"), ("b", "x", "10.0.0.2"), ("c", "c", "10.0.0.3")]
        .map(|(name, app, ip)| pod(name, app, ip));
    let before = model(&format!("{a}{b}{c}{closed}"));
    let after = model(&format!("{b}{c}{closed}"));
    let matrix = Matrix::of(&[&before, &after], &Filter::All).unwrap();
    let text = text::changes(&matrix, &changes(&matrix));
    assert!(text.ends_with("goes pod/t/a\n") && !text.contains("opens") && !text.contains("comes"), "{text}");
    let others = changes(&matrix)
        .into_iter()
        .filter(|change| ![change.from, change.to].iter().any(|place| matrix.parties[*place].name == "pod/t/a"));
    assert_eq!(others.count(), 0, "{text}");
}

#[test]
fn cidrs_without_rows_still_tell_pods_and_addresses_apart() {
    let many: String = (0..250).map(|number| format!("{{ipBlock: {{cidr: 172.16.{number}.0/24}}}},")).collect();
    let rules = |ports: &str| {
        format!(
            "{{from: [{many}]}}, {{from: [{{ipBlock: {{cidr: 10.9.0.1/32}}}}], ports: [{{port: 22}}]}}, \
             {{from: [{{ipBlock: {{cidr: 192.168.0.0/16, except: [192.168.0.0/32]}}}}], ports: [{ports}]}}"
        )
    };
    let pods = [("a", "x", "10.9.0.1"), ("b", "x", "10.9.0.2"), ("srv", "srv", "10.9.0.3")];
    let pods: String = pods.map(|(name, app, ip)| pod(name, app, ip)).concat();
    let cluster = model(&format!("{pods}{}", ingress("srv", &rules("{port: 80}"))));
    let matrix = Matrix::of(&[&cluster], &Filter::All).unwrap();
    assert_eq!(matrix.left_out, 53);
    let open = |from: &str| {
        let place = |name: &str| matrix.parties.iter().position(|party| party.name == name).unwrap();
        let cell = matrix.cells.iter().find(|cell| (cell.from, cell.to) == (place(from), place("pod/t/srv"))).unwrap();
        cell.open[0].v4.as_ref().unwrap().parts()
    };
    assert_eq!(open("pod/t/a"), ["22/TCP"]);
    assert_eq!(open("pod/t/b"), Vec::<String>::new());
    assert_eq!(open("192.168.0.0/16"), ["80/TCP"]);
}

#[test]
fn the_filter_names_ends() {
    let shop = model(&format!("{SHOP}{CLOSED}"));
    let pairs = |filter: &str| Matrix::of(&[&shop], &read(filter)).map(|matrix| matrix.cells.len());
    let all = Matrix::of(&[&shop], &Filter::All).unwrap().cells.len();
    // Four workloads and two parties outside, of which two have one pod only, and those outside do not ask each other.
    assert_eq!(all, 6 * 6 - 2 * 2 - 2);
    assert_eq!(pairs("ns/ops"), Ok(10));
    assert_eq!(pairs("deploy/shop/web"), Ok(11));
    assert_eq!(pairs("shop/db-1"), Ok(11));
    assert_eq!(pairs("192.0.2.7"), Ok(8));
    assert_eq!(pairs("outside"), Ok(8));
    let nobody = pairs("deploy/shop/wab").unwrap_err().to_string();
    assert_eq!(nobody, "there is no end shop/wab among those whom policies are about; did you mean shop/web?");
}
