//! What stands of a folder's files, and what is told of the others.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use compiler::Compiler;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A follower of a folder, and a time at which all that is written now is settled.
fn follower() -> (TempDir, Follower, SystemTime) {
    let folder = tempfile::tempdir().unwrap();
    let follower = Follower {
        standing: Standing::new().unwrap(),
        folder: Folder::new(folder.path().to_owned()),
        readiness: Readiness::new(),
        told: None,
        told_faults: BTreeSet::new(),
        unread: None,
        broken: None,
    };
    (folder, follower, SystemTime::now() + Duration::from_secs(60))
}

/// A file of a pod whose link is the one that every network namespace has.
fn file(container: &str, pod: &str, addresses: &[&str], link: Option<&str>) -> (String, Value) {
    let inside = json!({"name": "eth0", "sandbox": "/var/run/netns/x"});
    let interfaces: Vec<Value> = link.map(|link| json!({"name": link})).into_iter().chain([inside]).collect();
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"address": address})).collect();
    let content = json!({
        "kind": "cniCacheV1", "containerId": container, "ifName": "eth0", "networkName": "net",
        "cniArgs": [["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", pod]],
        "result": {"cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips},
    });
    (format!("net-{container}-eth0"), content)
}

fn write(folder: &TempDir, (name, content): (String, Value)) {
    fs::write(folder.path().join(name), content.to_string()).unwrap();
}

fn text(sandboxes: &[Sandbox]) -> Vec<String> {
    let line = |sandbox: &Sandbox| {
        let addresses: Vec<String> = sandbox.addresses.iter().map(ToString::to_string).collect();
        format!("{} {}", sandbox.pod, addresses.join(" "))
    };
    sandboxes.iter().map(line).collect()
}

#[test]
fn files_come_and_go() {
    let (folder, mut follower, now) = follower();
    assert_eq!(follower.read(now).as_deref(), Some(&[][..]), "that there is nothing is told once");
    write(&folder, file("1", "web", &["10.0.0.1/24"], Some("lo")));
    write(&folder, file("2", "db", &["10.0.0.2/24", "fd00::2/64"], Some("lo")));
    let read = follower.read(now).unwrap();
    assert_eq!(text(&read), ["a/db 10.0.0.2 fd00::2", "a/web 10.0.0.1"]);
    follower.told = Some(read);
    assert_eq!(follower.read(now), None, "the same again");
    fs::remove_file(folder.path().join("net-2-eth0")).unwrap();
    write(&folder, file("1", "web", &["10.0.0.3/24"], Some("lo")));
    assert_eq!(text(&follower.read(now).unwrap()), ["a/web 10.0.0.3"]);
    assert!(follower.readiness.status().notes.is_empty());
    drop(folder);
    assert_eq!(follower.read(now).as_deref(), Some(&[][..]));
    let notes = follower.readiness.status().notes;
    assert!(notes.len() == 1 && notes[0].starts_with("no results of CNI in "), "{notes:?}");
}

#[test]
fn a_file_counts_only_while_its_link_is_there() {
    let (folder, mut follower, now) = follower();
    write(&folder, file("1", "web", &["10.0.0.1/24"], Some("nosuchlink")));
    write(&folder, file("2", "db", &["10.0.0.2/24"], None));
    // What tells of no link counts if it is not older than the system.
    assert_eq!(text(&follower.read(now).unwrap()), ["a/db 10.0.0.2"]);
    let old = fs::File::options().write(true).open(folder.path().join("net-2-eth0")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    assert_eq!(text(&follower.read(now).unwrap()), [""; 0]);
    assert!(follower.readiness.status().notes.is_empty(), "what is left over is no fault");
}

#[test]
fn what_is_broken_is_told_by_name_and_touches_nothing_else() {
    let (folder, mut follower, now) = follower();
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = file("9", "secret", &["10.0.0.9/24"], Some("lo"));
    write(&outside, whole.clone());
    symlink(outside.path().join(&whole.0), path(&whole.0)).unwrap();
    symlink(outside.path(), path("folder")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    nix::unistd::mkfifo(&path("net-3-eth0"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(path("net-4-eth0")).unwrap();
    fs::write(path("empty"), "").unwrap();
    let text_of_whole = whole.1.to_string();
    fs::write(path("cut"), &text_of_whole[..text_of_whole.len() / 2]).unwrap();
    fs::write(path("copy"), &text_of_whole).unwrap();
    fs::File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"odd\n\xff\x1b[31m")), "{}").unwrap();
    write(&folder, file("1", "web", &["10.0.0.1/24"], Some("lo")));

    // What is in the making is not told yet.
    assert_eq!(text(&follower.read(SystemTime::now()).unwrap()), ["a/web 10.0.0.1"]);
    assert!(!follower.told_faults.iter().any(|fault| fault.starts_with("cut")), "{:?}", follower.told_faults);

    assert_eq!(text(&follower.read(now).unwrap()), ["a/web 10.0.0.1"]);
    let told: Vec<&str> = follower.told_faults.iter().map(String::as_str).collect();
    let due = [
        "copy: has not the name that belongs to what is in it, net-9-eth0",
        "cut: is no JSON: EOF while parsing",
        "dangling: is a link, and no file",
        "empty: is empty",
        "folder: is a link, and no file",
        "huge: is larger than 1048576 bytes",
        "net-3-eth0: is a pipe, and no file",
        "net-4-eth0: is a folder, and no file",
        "net-9-eth0: is a link, and no file",
        "odd\\n\u{fffd}\\u{1b}[31m: is not of the kind cniCacheV1",
    ];
    assert_eq!(told.len(), due.len(), "{told:#?}");
    for (told, due) in told.into_iter().zip(due) {
        assert!(told.starts_with(due), "{told}\n{due}");
    }
    let notes = follower.readiness.status().notes;
    assert!(notes.len() == 1 && notes[0].contains("10, such as copy: "), "{notes:?}");
}

#[test]
fn a_file_that_is_written_slowly_is_read_when_it_is_whole() {
    let (folder, mut follower, _) = follower();
    let (name, content) = file("1", "web", &["10.0.0.1/24"], Some("lo"));
    let content = content.to_string();
    for cut in [0, 10, content.len() - 1] {
        fs::write(folder.path().join(&name), &content[..cut]).unwrap();
        assert_eq!(text(&follower.read(SystemTime::now()).unwrap()), [""; 0]);
    }
    fs::write(folder.path().join(&name), &content).unwrap();
    assert_eq!(text(&follower.read(SystemTime::now()).unwrap()), ["a/web 10.0.0.1"]);
    assert!(follower.told_faults.is_empty());
}

#[test]
fn an_address_of_two_pods_is_left_to_the_api() {
    let (folder, mut follower, now) = follower();
    write(&folder, file("1", "web", &["10.0.0.1/24", "fd00::1/64"], Some("lo")));
    write(&folder, file("2", "db", &["10.0.0.1/24"], Some("lo")));
    // Two files of one pod say the same, where a plugin works with libcni itself.
    write(&folder, file("3", "web", &["fd00::1/64"], Some("lo")));
    assert_eq!(text(&follower.read(now).unwrap()), ["a/web fd00::1"]);
    let told: Vec<&str> = follower.told_faults.iter().map(String::as_str).collect();
    let fault = "the file of another pod has 10.0.0.1 too";
    assert_eq!(told, [format!("net-1-eth0: {fault}"), format!("net-2-eth0: {fault}")]);
}

#[test]
fn of_too_many_files_the_newest_are_read() {
    let (folder, mut follower, now) = follower();
    for n in 0..10_010 {
        let path = folder.path().join(format!("{n:05}"));
        fs::File::create(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9)).unwrap();
    }
    write(&folder, file("1", "web", &["10.0.0.1/24"], Some("lo")));
    assert_eq!(text(&follower.read(now).unwrap()), ["a/web 10.0.0.1"]);
    assert_eq!(follower.told_faults.len(), MOST_TOLD, "the first are told by name");
    assert!(follower.readiness.status().notes[0].contains("; the first 20 are in the log"));
}

#[test]
fn a_pod_is_policed_by_its_file_alone() {
    // From the bytes to the rules: the API knows the pod, and not its address.
    let (folder, mut follower, now) = follower();
    write(&folder, file("1", "web", &["10.0.0.1/24"], Some("lo")));
    let mut compiler = Compiler::new(compiler::api::NodeName("n1".into()), compiler::nft::Deny::Drop);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Pending"}});
    for item in compiler::api::parse(&pod.into(), "test") {
        let compiler::api::Item::Object { parsed, .. } = item else { panic!("not an object") };
        let compiler::api::Object::Pod(pod) = parsed.value else { panic!("not a pod") };
        compiler.apply(Event::Pods(compiler::cluster::PodSource::Node, compiler::cluster::Change::Applied(pod)));
    }
    assert!(compiler.ir().pods.is_empty());
    compiler.apply(Event::Sandboxes(follower.read(now).unwrap()));
    assert_eq!(compiler.ir().pods[0].addresses[0].to_string(), "10.0.0.1");
}
