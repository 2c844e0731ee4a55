//! What files hold, and what is told of those that cannot be read.

use std::collections::BTreeSet;

use super::*;

const REACH: Reach = Reach { recursive: true, pipes: true };

/// A folder of files that is removed at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(folder.path(name), text).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads these names; the empty one is the folder itself.
    fn load(&self, names: &[&str]) -> Loaded {
        let paths: Vec<_> =
            names.iter().map(|name| if *name == "-" { PathBuf::from(name) } else { self.path(name) }).collect();
        load_with(&paths, REACH, &mut "{apiVersion: v1, kind: Pod, metadata: {name: piped}}".as_bytes())
    }

    /// A printed line with the folder's own path cut off.
    fn cut(&self, text: impl ToString) -> String {
        text.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }

    fn errors(&self, loaded: &Loaded) -> Vec<String> {
        loaded.errors.iter().map(|error| self.cut(error)).collect()
    }

    fn notes(&self, loaded: &Loaded) -> Vec<String> {
        loaded.notes.iter().map(|note| self.cut(note)).collect()
    }
}

fn objects(loaded: &Loaded) -> Vec<String> {
    loaded.objects.iter().map(|object| object.reference().to_string()).collect()
}

fn findings(loaded: &Loaded) -> Vec<String> {
    loaded.findings.iter().map(ToString::to_string).collect()
}

/// Loads one file `f.yaml` and gives its objects but for the Namespaces, its findings and its errors.
fn read(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let folder = Folder::with(&[("f.yaml", text)]);
    let mut loaded = folder.load(&["f.yaml"]);
    loaded.objects.retain(|object| !matches!(object, Object::Namespace(_)));
    (objects(&loaded), findings(&loaded), folder.errors(&loaded))
}

fn pod(name: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}}}\n")
}

/// The labels of the only Pod in a text, and the findings about it without its name.
fn labels_of(labels: &str) -> (Vec<String>, Vec<String>) {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n{labels}");
    let loaded = load_with(&["-".into()], REACH, &mut text.as_bytes());
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let Some(Object::Pod(pod)) = loaded.objects.first() else { panic!("{:?} has no Pod", loaded.objects) };
    let labels = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (labels, findings(&loaded).iter().map(|text| text.replace("Pod default/p: metadata.labels.", "")).collect())
}

#[test]
fn files_folders_and_standard_input() {
    let folder = Folder::with(&[
        ("b.yml", &pod("b")),
        ("a.yaml", &pod("a")),
        ("c.json", r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}"#),
        ("readme.txt", "not: [read"),
        ("YAML", "not: [read"),
    ]);
    std::fs::create_dir(folder.path("inner.yaml")).unwrap();
    std::fs::write(folder.path("inner.yaml/d.yaml"), pod("d")).unwrap();
    std::os::unix::fs::symlink("a.yaml", folder.path("z.yaml")).unwrap();
    let loaded = folder.load(&["", "-", "inner.yaml"]);
    assert_eq!(folder.errors(&loaded), Vec::<String>::new());
    assert_eq!(
        objects(&loaded),
        ["Pod default/b", "Pod default/c", "Pod default/d", "Pod default/a", "Pod default/piped", "Namespace default"]
    );
    let notes: Vec<_> = folder.notes(&loaded).into_iter().skip(1).collect();
    assert_eq!(notes, ["z.yaml:1:1: Pod default/a again; the one read last counts"]);
}

#[test]
fn a_file_that_is_named_is_read_whatever_its_ending() {
    let folder = Folder::with(&[("manifest", &pod("a"))]);
    assert_eq!(objects(&folder.load(&["manifest"])), ["Pod default/a", "Namespace default"]);
}

#[test]
fn what_cannot_be_read_does_not_stop_the_rest() {
    let folder = Folder::with(&[
        (
            "a.yaml",
            "apiVersion: v1\nkind: [Pod\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n--- # third\n7\n",
        ),
        ("b.yaml", &pod("b")),
    ]);
    std::fs::write(folder.path("c.yaml"), b"# \xc3\xa9\n# \xc3\xa9\xff").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path("d.yaml")).unwrap();
    let loaded = folder.load(&["missing", ""]);
    assert_eq!(objects(&loaded), ["Pod default/a", "Pod default/b", "Namespace default"]);
    assert_eq!(
        folder.errors(&loaded),
        [
            "missing: No such file or directory (os error 2)",
            "a.yaml:2:7: unclosed bracket '['",
            "a.yaml:5:1: is not an object",
            "c.yaml:2:4: is not text in UTF-8",
            "d.yaml: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn a_stream_of_json_objects() {
    let pod = |name: &str| format!(r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}}}"#);
    let none = Vec::<String>::new;
    let named = |names: &[&str]| names.iter().map(|name| format!("Pod default/{name}")).collect::<Vec<_>>();
    let (lines, close) = (format!("{}\r\n\n{}\n", pod("a"), pod("b")), format!("{}{} # end\n", pod("a"), pod("b")));
    for text in [&lines, &close] {
        assert_eq!(read(text), (named(&["a", "b"]), none(), none()), "{text}");
    }
    let mixed = format!("---\n{}\n{}\n---\n{}", pod("a"), pod("b"), pod("c"));
    assert_eq!(read(&mixed), (named(&["a", "b", "c"]), none(), none()));
    let twice = r#"{"apiVersion": "v1", "kind": "Pod", "kind": "Node"}"#;
    let (objects, _, errors) = read(&format!("{}\n{twice}\n{}\n{{\"kind\": ]", pod("a"), pod("b")));
    assert_eq!(objects, named(&["a", "b"]));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("f.yaml:2:") && errors[1].starts_with("f.yaml:4:"), "{errors:?}");
}

#[test]
fn empty_sources() {
    let folder = Folder::with(&[("a.txt", ""), ("b.yaml", ""), ("c.yaml", "# only\n---\n...\n---\nnull\n--- ~\n---")]);
    std::fs::create_dir(folder.path("empty")).unwrap();
    let loaded = folder.load(&["a.txt", "b.yaml", "c.yaml", "empty"]);
    assert_eq!((objects(&loaded), folder.errors(&loaded)), (vec![], vec![]));
    assert_eq!(folder.notes(&loaded), ["empty: holds no file that ends in .yaml, .yml or .json"]);
}

#[test]
fn an_endless_file_is_an_error() {
    let error = source::read(&mut std::io::repeat(b' '), 1 << 20).unwrap_err();
    assert_eq!(error.to_string(), "more than 1048576 bytes");
    assert_eq!(source::read(&mut std::io::repeat(b' ').take(1 << 20), 1 << 20).unwrap().len(), 1 << 20);
}

#[test]
fn folders_in_folders() {
    let folder = Folder::with(&[("a.yaml", &pod("a")), ("notes.md", ""), ("b.md", ""), ("Makefile", "")]);
    for (name, text) in [("x/b.yaml", pod("b")), ("x/y/c.json", pod("c")), (".git/d.yaml", pod("d"))] {
        std::fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path(name), text).unwrap();
    }
    std::os::unix::fs::symlink(folder.path(""), folder.path("x/again")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path(".#a.yaml")).unwrap();
    nix::unistd::mkfifo(&folder.path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let loaded = folder.load(&[""]);
    assert_eq!(folder.errors(&loaded), Vec::<String>::new());
    assert_eq!(objects(&loaded), ["Pod default/a", "Pod default/b", "Pod default/c", "Namespace default"]);
    let [note] = &folder.notes(&loaded)[..] else { panic!("{:?}", loaded.notes) };
    assert!(note.ends_with("not read: 2 .md, 1 pipe, 1 without an ending"), "{note}");
    let flat = load_as(&[folder.path("")], Reach { recursive: false, pipes: true });
    assert_eq!(objects(&flat), ["Pod default/a", "Namespace default"]);
    let twice = folder.load(&["", "x", "a.yaml"]);
    assert_eq!((objects(&twice).len(), twice.notes.len()), (4, 1), "paths that overlap: {:?}", twice.notes);
}

#[test]
fn comments_and_shared_labels_have_no_limit_that_people_meet() {
    let comments = "    # a remark\n".repeat(20_000);
    let none = Vec::<String>::new;
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n{comments}    a: b\n");
    assert_eq!(read(&text), (vec!["Pod default/p".into()], none(), none()));
    let in_list = format!("apiVersion: v1\nkind: List\nitems:\n{comments}- {}{comments}- {}", pod("a"), pod("b"));
    assert_eq!(read(&in_list).0.len(), 2);
    let mut shared = String::from("apiVersion: v1\nkind: List\nitems:\n");
    shared.push_str("- {apiVersion: v1, kind: Pod, metadata: {name: p, labels: &common {app: web}}}\n");
    for i in 0..500 {
        shared.push_str(&format!("- {{apiVersion: v1, kind: Pod, metadata: {{name: p{i}, labels: *common}}}}\n"));
    }
    let (objects, _, errors) = read(&shared);
    assert_eq!((objects.len(), errors), (501, none()));
}

#[test]
fn a_template_is_to_be_rendered_first() {
    let rendered = "render the chart first (helm template)";
    for text in [
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Values.name }}\n",
        "{{- if .Values.on }}\na: b\n{{- end }}\n",
    ] {
        let (_, _, errors) = read(text);
        assert!(matches!(&errors[..], [error] if error.ends_with(rendered)), "{errors:?}");
    }
    let (objects, _, errors) = read(&format!("# {{{{ in a comment }}}}\n{}", pod("a")));
    assert_eq!((objects.len(), errors.len()), (1, 0));
}

#[test]
fn kinds_that_are_near_are_findings() {
    let (objects, findings, errors) = read(
        "{apiVersion: v1, kind: NetworkPolicy, metadata: {name: a}}\n---\n{apiVersion: projectcalico.org/v3, kind: \
         NetworkPolicy, metadata: {name: b, namespace: c}}\n",
    );
    assert_eq!((objects.len(), errors.len()), (0, 0));
    assert_eq!(findings.len(), 2);
    assert!(findings[0].starts_with("NetworkPolicy c/b: a policy that Calico may enforce"), "{findings:?}");
    assert!(findings[1].starts_with("NetworkPolicy a: apiVersion: \"v1\" has no NetworkPolicy"), "{findings:?}");
}

#[test]
fn pods_whose_status_has_no_address() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Pending}}\n---\n\
                {apiVersion: v1, kind: Pod, metadata: {name: b}, status: {}}\n---\n\
                {apiVersion: v1, kind: Pod, metadata: {name: c}, status: {podIP: 10.0.0.1}}\n";
    let loaded = load_with(&["-".into()], REACH, &mut text.as_bytes());
    let expected = BTreeSet::from([PodKey { namespace: "default".into(), name: "a".into() }]);
    assert_eq!(loaded.without_address, expected);
}

#[test]
fn documents_of_a_file() {
    let both = vec!["Pod default/a".to_owned(), "Pod default/b".to_owned()];
    let (a, b) = (pod("a"), pod("b"));
    for text in [
        format!("{a}---\n{b}"),
        format!("---\n{a}---\n{b}---\n"),
        format!("# {a}--- # first\n{a}\n---\t\n# second\n{b}"),
        format!("--- {a}--- {b}"),
        format!("\u{feff}---\r\n{}---\r\n{}", a.replace('\n', "\r\n"), b.replace('\n', "\r\n")),
        format!("%YAML 1.2\n---\n{a}...\n%YAML 1.2\n---\n{b}"),
        format!("{a}...\n---\n{b}"),
        format!("apiVersion: v1\nkind: List\nitems:\n- {a}- {b}"),
        "{\"apiVersion\":\"v1\",\"kind\":\"PodList\",\t\"items\":[\n\t{\"metadata\":{\"name\":\"a\"}},\n\
         {\"metadata\":{\"name\":\"\\u0062\"}}]}"
            .to_owned(),
    ] {
        assert_eq!(read(&text), (both.clone(), vec![], vec![]), "{text}");
    }
    let dashes_in_text =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    note: |\n      ---\n      ----\n";
    assert_eq!(read(dashes_in_text), (vec!["Pod default/a".to_owned()], vec![], vec![]));
}

#[test]
fn errors_name_line_column_and_reason() {
    for (text, expected) in [
        ("a: 1\n---\nb: 1\nb: 2\n", "f.yaml:4:1: duplicate mapping key `b` is not allowed here"),
        ("---\n# x\n---\na:\n\tb: 1\n", "f.yaml:5:2: tabs disallowed within this context (block indentation)"),
        ("a: \"open\n", "f.yaml:1:4: unclosed quote"),
        ("{\"a\": 1,\n \"a\": 2}", "f.yaml:2:2: duplicate mapping key `a` is not allowed here"),
        ("a: b: c\n", "f.yaml:1:5: mapping values are not allowed in this context"),
        ("a: *b\n", "f.yaml:1:4: reference to unknown value"),
        ("? {a: b}\n: c\n", "f.yaml:1:3: expected string scalar"),
        ("apiVersion: v1\n", "f.yaml:1:1: has no kind"),
        ("# x\n\napiVersion: v1\nkind: List\nitems: [1]\n", "f.yaml:1:1: items[0]: is not an object"),
    ] {
        let (_, _, errors) = read(text);
        assert_eq!(errors.last().map(String::as_str), Some(expected), "{text}");
    }
}

#[test]
fn anchors_and_merge_keys() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
                - &pod\n  apiVersion: v1\n  kind: Pod\n  metadata: {name: a, labels: &labels {app: web, tier: x}}\n\
                - <<: *pod\n  metadata: {name: b, labels: {<<: *labels, tier: z}}\n";
    let loaded = load_with(&["-".into()], REACH, &mut text.as_bytes());
    assert_eq!(loaded.errors.len(), 0, "{:?}", loaded.errors);
    let labels: Vec<_> = loaded
        .objects
        .iter()
        .filter_map(|object| if let Object::Pod(pod) = object { Some(pod) } else { None })
        .map(|pod| pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(labels, ["app=web,tier=x", "app=web,tier=z"]);
}

#[test]
fn bombs_are_bounded() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    for text in [laughs, "[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "a: &a [*a]\n".to_owned()] {
        let (objects, _, errors) = read(&format!("{text}\n---\n{}", pod("after")));
        assert_eq!(objects, ["Pod default/after"], "{errors:?}");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].len() < 300, "{errors:?}");
    }
}

#[test]
fn long_strings() {
    let long = "x".repeat(5 << 20);
    let (objects, findings, errors) =
        read(&format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n    a: {long}\n"));
    assert_eq!((objects, errors), (vec!["Pod default/p".to_owned()], vec![]));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].len() < 300, "{findings:?}");
}

#[test]
fn scalars_that_are_no_strings() {
    let wrong = |key: &str, found: &str| format!("{key}: {found} where a string is due; quote it");
    for (value, found) in [
        ("1", "a number"),
        ("1.20", "a number"),
        ("0644", "a number"),
        ("0x1F", "a number"),
        ("y", "a boolean"),
        ("1e3", "a number"),
        ("true", "a boolean"),
        ("yes", "a boolean"),
        ("No", "a boolean"),
        ("on", "a boolean"),
    ] {
        assert_eq!(labels_of(&format!("    k: {value}\n")), (vec![], vec![wrong("k", found)]), "{value}");
        for quoted in [format!("'{value}'"), format!("\"{value}\""), format!("!!str {value}")] {
            assert_eq!(labels_of(&format!("    k: {quoted}\n")), (vec![format!("k={value}")], vec![]), "{quoted}");
        }
    }
    for text in ["v1.20", "1.2.3", "2026-01-01", "1-2", "truely", "12h"] {
        assert_eq!(labels_of(&format!("    k: {text}\n")), (vec![format!("k={text}")], vec![]), "{text}");
    }
    // A key is a string whatever it looks like, and an absent value is an empty one.
    assert_eq!(labels_of("    1: a\n    yes: b\n    c:\n"), (vec!["1=a".into(), "c=".into(), "yes=b".into()], vec![]));
}

#[test]
fn objects_of_one_name() {
    let policy = |name: &str, selector: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: a}}, spec: \
             {{podSelector: {selector}}}}}\n"
        )
    };
    let folder = Folder::with(&[
        ("1.yaml", &format!("{}---\n{}", policy("x", "broken"), policy("w", "{}"))),
        ("2.yaml", &policy("x", "{matchLabels: {app: b}}")),
    ]);
    let loaded = folder.load(&[""]);
    assert_eq!(objects(&loaded), ["NetworkPolicy a/w", "NetworkPolicy a/x", "Namespace a"]);
    assert_eq!(folder.notes(&loaded), ["2.yaml:1:1: NetworkPolicy a/x again; the one read last counts"]);
    assert_eq!(findings(&loaded), Vec::<String>::new(), "what is replaced is not worth a word");
    let Object::NetworkPolicy(x) = &loaded.objects[1] else { panic!("{:?}", loaded.objects) };
    assert_eq!(x.pod_selector.to_string(), "app=b");
}

#[test]
fn policies_without_a_name_stay_apart() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {}}}\n";
    let folder = Folder::with(&[("A_b.yaml", &format!("{policy}---\n{policy}")), ("c.yaml", policy)]);
    let loaded = folder.load(&[""]);
    let names: BTreeSet<String> = objects(&loaded).into_iter().collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("NetworkPolicy default/")).count(), 3, "{names:?}");
    let expected =
        format!("NetworkPolicy default/{}-document-1: metadata: is missing", folder.path("A_b.yaml").display());
    assert_eq!(findings(&loaded)[0], expected);
}

#[test]
fn other_kinds_are_noted() {
    let folder = Folder::with(&[("f.yaml", "# x\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")]);
    let loaded = folder.load(&["f.yaml"]);
    assert!(loaded.objects.is_empty() && loaded.errors.is_empty());
    assert_eq!(folder.notes(&loaded), ["f.yaml:2:1: ConfigMap c (v1): not of a kind that policies are about, skipped"]);
}

#[test]
fn namespaces_are_what_the_api_server_would_make_of_them() {
    let text = "\
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: x, kubernetes.io/metadata.name: other}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: b}, spec: {}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: c}}
---
{apiVersion: v1, kind: Node, metadata: {name: n}}
";
    let loaded = load_with(&["-".into()], REACH, &mut text.as_bytes());
    let namespaces: Vec<_> = loaded
        .objects
        .iter()
        .filter_map(|object| if let Object::Namespace(namespace) = object { Some(namespace) } else { None })
        .map(|namespace| {
            let labels: Vec<_> = namespace.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{}: {}", namespace.name, labels.join(","))
        })
        .collect();
    assert_eq!(
        namespaces,
        [
            "a: kubernetes.io/metadata.name=a,team=x",
            "b: kubernetes.io/metadata.name=b",
            "c: kubernetes.io/metadata.name=c",
            "default: kubernetes.io/metadata.name=default",
        ]
    );
}

#[test]
fn declared_ports_come_beside_the_pods() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{ports: [{containerPort: 80}]}]}\n\
                ---\napiVersion: v1\nkind: Pod\nmetadata: {name: q}\n";
    let loaded = load_with(&["-".into()], REACH, &mut text.as_bytes());
    let ports: Vec<_> = loaded.declared_ports.iter().map(|(pod, ports)| format!("{pod} {ports:?}")).collect();
    assert_eq!(ports, ["default/p [(Tcp, 80)]"]);
}

#[test]
fn every_manifest_of_the_project_is_whole() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let mut folders: Vec<_> = std::fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 14, "each scenario has a folder");
    for folder in folders {
        let loaded = load_with(std::slice::from_ref(&folder), REACH, &mut std::io::empty());
        let (errors, notes) = (&loaded.errors, &loaded.notes);
        // Probes stand beside the manifests.
        let are_probes = notes.iter().all(|note| note.to_string().ends_with("not read: 1 .jsonl"));
        assert!(errors.is_empty() && are_probes, "{}: {errors:?} {notes:?}", folder.display());
        let findings = findings(&loaded);
        if folder.ends_with("03-policy-without-annotation") {
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert!(finding.ends_with("the policy is without effect"), "{finding}");
        } else {
            assert_eq!(findings, Vec::<String>::new(), "{}", folder.display());
        }
        assert!(!loaded.objects.is_empty(), "{}", folder.display());
    }
}
