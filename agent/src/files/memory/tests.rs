//! What is in force while files break and vanish.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use super::*;
const REACH: Reach = Reach { recursive: true, pipes: false };

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

fn policy(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\nspec: {{podSelector: {{}}}}\n"
    )
}

/// A folder, and what an agent remembers of it.
struct World {
    _root: tempfile::TempDir,
    folder: PathBuf,
    memory: Memory,
}

impl World {
    fn with(files: &[(&str, &str)]) -> World {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("live");
        fs::create_dir(&folder).unwrap();
        let world = World { folder, _root: root, memory: Memory::default() };
        for (name, text) in files {
            world.write(name, text);
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The names of the objects in force but for Namespaces, and the faults.
    fn read(&mut self) -> (Vec<String>, Vec<String>) {
        let folder = self.folder.clone();
        self.read_paths(std::slice::from_ref(&folder))
    }

    fn read_paths(&mut self, paths: &[PathBuf]) -> (Vec<String>, Vec<String>) {
        let InForce { loaded, faults, .. } = self.memory.read(paths, REACH);
        let objects = loaded.objects.iter().filter(|object| !matches!(object, Object::Namespace(_)));
        let folder = format!("{}", self.folder.display());
        let cut = |text: &String| text.replace(&format!("{folder}/"), "").replace(&folder, "FOLDER");
        (objects.map(|object| object.reference().name.to_string()).collect(), faults.iter().map(cut).collect())
    }
}

/// A folder with a pod and a policy, read once.
fn fresh() -> World {
    let mut world = World::with(&[("deny.yaml", &policy("deny")), ("pod.yaml", &pod("p"))]);
    assert_eq!(world.read(), (vec!["deny".into(), "p".into()], vec![]));
    world
}

#[test]
fn what_a_file_said_stays_until_it_can_be_read_again() {
    let deny = policy("deny");
    for (text, fault) in [
        ("{{{ not: yaml", "deny.yaml:1:"),
        ("kind: [", "deny.yaml:1:7: unclosed bracket"),
        ("", "deny.yaml: holds nothing any more"),
        ("null\n", "deny.yaml: holds nothing any more"),
        ("# all gone\n---\n", "deny.yaml: holds nothing any more"),
        ("{apiVersion: v1, kind: List, items: null}\n", "deny.yaml:1:1: has no items"),
        ("{apiVersion: v1, kind: List}\n", "deny.yaml:1:1: has no items"),
        ("\0\0\0\0", "deny.yaml:1:1:"),
        ("- 1\n", "deny.yaml:1:1: is not an object"),
        (&deny.replace("NetworkPolicy", "NetworkPolcy"), "deny.yaml:1:1: NetworkPolcy deny: kind:"),
        (&deny.replace("networking.k8s.io/v1", "v1"), "deny.yaml:1:1: NetworkPolicy deny: apiVersion:"),
        (&deny[..90], "deny.yaml:5:7"),
        (&deny[..deny.find("name").unwrap()], "deny.yaml:4: is cut off"),
        (&deny[..deny.find("spec").unwrap() - 2], "deny.yaml:4: is cut off in its last line"),
        (&format!("{deny}---\nkind: ["), "deny.yaml:7:7: unclosed bracket"),
        (&deny.replace("name: deny", "labels: {}"), "deny.yaml:1:1: NetworkPolicy default/"),
    ] {
        let mut world = fresh();
        world.write("deny.yaml", text);
        for _ in 0..2 {
            let (objects, faults) = world.read();
            assert_eq!(objects, ["deny", "p"], "{text:?} {faults:?}");
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{text:?} {faults:?}");
        }
        world.write("deny.yaml", &policy("other"));
        assert_eq!(world.read(), (vec!["other".into(), "p".into()], vec![]));
    }
}

#[test]
fn a_pod_whose_file_breaks_stays() {
    let mut world = fresh();
    world.write("pod.yaml", "{");
    let (objects, faults) = world.read();
    assert_eq!((objects.len(), faults.len()), (2, 1), "{faults:?}");
}

#[test]
fn a_pod_that_loses_what_isolates_it_stays_as_it_was() {
    let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\nstatus: {podIP: 10.0.0.1}\n";
    for (from, to, fault) in [
        ("{app: web}", "[app]", "pod.yaml:1:1: Pod default/p: metadata.labels"),
        ("10.0.0.1", "10.0.0.256", "pod.yaml:1:1: Pod default/p: status.podIP"),
    ] {
        let mut world = World::with(&[("pod.yaml", good)]);
        world.read();
        let before = world.memory.files.values().next().unwrap().objects[0].object.clone();
        world.write("pod.yaml", &good.replace(from, to));
        let (_, faults) = world.read();
        assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        assert_eq!(world.memory.files.values().next().unwrap().objects[0].object, before);
    }
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let mut world = fresh();
    world.write("pod.yaml", "{");
    // The first reading is too close to the writing for the times of the files to tell.
    while world.memory.looks.values().filter(|(stamp, _)| stamp.is_some()).count() < 2 {
        world.read();
    }
    let read_again = |world: &World| {
        let is_known = |key: &FileKey, now: &Stamp, _: &Path| {
            world.memory.looks.get(key).is_some_and(|(stamp, _)| stamp.as_ref() == Some(now))
        };
        let reading = read_with(std::slice::from_ref(&world.folder), REACH, is_known, &mut io::empty());
        reading.files.into_iter().map(|((_, path), _)| path).collect::<Vec<_>>()
    };
    assert_eq!(read_again(&world), Vec::<PathBuf>::new());
    let (objects, faults) = world.read();
    assert_eq!((objects.len(), faults.len()), (2, 1), "what is wrong stays wrong: {faults:?}");
    world.write("pod.yaml", &pod("p"));
    assert_eq!(read_again(&world), [world.path("pod.yaml")]);
    assert_eq!(world.read(), (vec!["deny".into(), "p".into()], vec![]));
}

#[test]
fn what_is_no_file_any_more_stays() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 4] = [
        (|path| symlink("/nowhere", path).unwrap(), "deny.yaml: No such file or directory (os error 2)"),
        (|path| fs::create_dir(path).unwrap(), "deny.yaml: is a folder now, and was a file"),
        (
            |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "deny.yaml: is a pipe now, and was a file",
        ),
        (
            |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
            "deny.yaml: is a socket now, and was a file",
        ),
    ];
    for (change, fault) in changes {
        let mut world = fresh();
        fs::remove_file(world.path("deny.yaml")).unwrap();
        change(&world.path("deny.yaml"));
        assert_eq!(world.read(), (vec!["deny".into(), "p".into()], vec![fault.into()]));
    }
}

#[test]
fn what_is_removed_in_good_order_is_gone() {
    let mut world = fresh();
    fs::remove_file(world.path("deny.yaml")).unwrap();
    assert_eq!(world.read(), (vec!["p".into()], vec![]));
    // A document of several, a file for another, and a folder with all that is in it.
    world.write("inner/a.yaml", &format!("{}---\n{}", policy("a"), policy("b")));
    assert_eq!(world.read().0, ["a", "b", "p"]);
    world.write("inner/a.yaml", &policy("b"));
    assert_eq!(world.read(), (vec!["b".into(), "p".into()], vec![]));
    fs::rename(world.path("inner/a.yaml"), world.path("inner/c.yaml")).unwrap();
    assert_eq!(world.read(), (vec!["b".into(), "p".into()], vec![]));
    fs::remove_dir_all(world.path("inner")).unwrap();
    assert_eq!(world.read(), (vec!["p".into()], vec![]));
    // The last pod of a folder without policies.
    fs::remove_file(world.path("pod.yaml")).unwrap();
    assert_eq!(world.read(), (vec![], vec![]));
    // An empty list says that nothing is meant.
    let mut world = fresh();
    fs::remove_file(world.path("pod.yaml")).unwrap();
    world.write("deny.yaml", "{apiVersion: v1, kind: List, items: []}\n");
    assert_eq!(world.read(), (vec![], vec![]));
}

#[test]
fn a_folder_that_vanishes_or_is_emptied_at_once_keeps_what_it_held() {
    let mut world = fresh();
    let away = world.folder.with_extension("away");
    fs::rename(&world.folder, &away).unwrap();
    let both = || vec!["deny".to_owned(), "p".to_owned()];
    let gone = "FOLDER: No such file or directory (os error 2)".to_owned();
    assert_eq!(world.read(), (both(), vec![gone]));
    // Another folder in its place, as beneath a file system that was unmounted: kept for as long as it is empty.
    fs::create_dir(&world.folder).unwrap();
    for _ in 0..2 {
        let (objects, faults) = world.read();
        assert_eq!(objects, both());
        assert!(faults.len() == 1 && faults[0].starts_with("FOLDER: holds no manifest any more"), "{faults:?}");
    }
    fs::remove_dir(&world.folder).unwrap();
    fs::rename(&away, &world.folder).unwrap();
    assert_eq!(world.read(), (both(), vec![]));
    for name in ["deny.yaml", "pod.yaml"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    let (objects, faults) = world.read();
    assert_eq!((objects, faults.len()), (both(), 1));
    world.write("new.yaml", &pod("new"));
    assert_eq!(world.read(), (vec!["new".into()], vec![]));
}

#[test]
fn a_given_file_that_is_gone_stays() {
    let mut world = fresh();
    let paths = [world.path("deny.yaml"), world.path("pod.yaml")];
    assert_eq!(world.read_paths(&paths).1.len(), 0);
    fs::remove_file(&paths[0]).unwrap();
    let (objects, faults) = world.read_paths(&paths);
    assert!(objects.contains(&"deny".to_owned()), "{objects:?}");
    assert_eq!(faults, ["deny.yaml: No such file or directory (os error 2)"]);
}

#[test]
fn an_update_of_a_mounted_config_map_is_an_edit() {
    let mut world = World::with(&[]);
    for (version, names) in [("..1", vec!["a", "b"]), ("..2", vec!["b"])] {
        fs::create_dir(world.path(version)).unwrap();
        for name in names {
            let file = format!("{name}.yaml");
            fs::write(world.path(version).join(&file), policy(&format!("{name}{}", &version[2..]))).unwrap();
            if version == "..1" {
                symlink(format!("..data/{file}"), world.path(&file)).unwrap();
            }
        }
        symlink(version, world.path("..new")).unwrap();
        fs::rename(world.path("..new"), world.path("..data")).unwrap();
        if version == "..1" {
            assert_eq!(world.read(), (vec!["a1".into(), "b1".into()], vec![]));
        }
    }
    let (objects, faults) = world.read();
    assert_eq!((objects, faults.len()), (vec!["a1".into(), "b2".into()], 1), "before the stale link is removed");
    fs::remove_file(world.path("a.yaml")).unwrap();
    assert_eq!(world.read(), (vec!["b2".into()], vec![]));
}

#[test]
fn a_new_file_counts_as_far_as_it_can_be_read() {
    let mut world = fresh();
    world.write("new.yaml", &format!("{}---\nkind: [", policy("new")));
    let (objects, faults) = world.read();
    assert_eq!((objects, faults.len()), (vec!["deny".into(), "new".into(), "p".into()], 1));
}

#[test]
fn policies_of_others_are_no_fault() {
    let mut world = fresh();
    world.write("cilium.yaml", "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c}}");
    let InForce { loaded, faults, .. } = world.memory.read(std::slice::from_ref(&world.folder), REACH);
    assert_eq!(faults, Vec::<String>::new());
    assert!(loaded.findings[0].to_string().contains("Cilium"), "{:?}", loaded.findings);
}

#[test]
fn an_agent_that_starts_replaces_rules_only_by_all_that_there_should_be() {
    let begins = |files: &[(&str, &str)], has_rules: bool| {
        let world = World::with(files);
        let paths = if files.is_empty() { world.path("missing") } else { world.folder.clone() };
        Memory::default().read(&[paths], REACH).may_begin(|| has_rules)
    };
    let (deny, broken) = (policy("deny"), "kind: [");
    for has_rules in [false, true] {
        assert!(begins(&[("deny.yaml", &deny)], has_rules));
        assert!(!begins(&[], has_rules), "a path that is not there");
        assert_eq!(begins(&[("deny.yaml", &deny), ("broken.yaml", broken)], has_rules), !has_rules);
        assert!(!begins(&[("pod.yaml", &pod("p")), ("broken.yaml", broken)], has_rules), "nobody would be isolated");
        assert_eq!(begins(&[("readme.txt", "nothing")], has_rules), !has_rules);
    }
}

/// A policy in a file of more than [`LARGE`] bytes.
fn large_policy(name: &str) -> String {
    let size = usize::try_from(super::super::large::LARGE).unwrap();
    policy(name) + "# " + &"x".repeat(size) + "\n"
}

#[test]
fn a_large_file_holds_up_no_other() {
    let mut world = World::with(&[("a.yaml", &policy("a")), ("large.yaml", &large_policy("old"))]);
    assert_eq!(world.read().0, ["a", "old"], "the first reading is of all");

    // The thread stops before it reads, until it is let go on.
    let (go, may_go) = mpsc::channel::<()>();
    let (ended, has_ended) = mpsc::channel();
    let tell = move |step| match step {
        Step::Begin => may_go.recv().unwrap(),
        Step::End => ended.send(()).unwrap(),
    };
    world.memory.read_large_beside(tell).unwrap();
    world.write("large.yaml", &large_policy("new"));
    world.write("b.yaml", &policy("b"));
    assert_eq!(world.read().0, ["a", "b", "old"], "what it said stands while it is read");
    go.send(()).unwrap();
    has_ended.recv().unwrap();
    assert_eq!(world.read().0, ["a", "b", "new"]);

    // It is changed again, and again while it is read: what it said last counts in the end.
    world.write("large.yaml", &large_policy("newer"));
    world.read();
    go.send(()).unwrap();
    has_ended.recv().unwrap();
    world.write("large.yaml", &policy("small"));
    assert_eq!(world.read().0, ["a", "b", "small"]);
    fs::remove_file(world.path("large.yaml")).unwrap();
    assert_eq!(world.read().0, ["a", "b"]);
    assert_eq!(world.read().0, ["a", "b"], "a file that is gone stays so");
}

#[test]
fn a_large_file_that_breaks_is_a_fault_until_it_is_whole() {
    let mut world = World::with(&[("large.yaml", &large_policy("old"))]);
    world.read();
    let (ended, has_ended) = mpsc::channel();
    let tell = move |step| match step {
        Step::Begin => {}
        Step::End => ended.send(()).unwrap(),
    };
    world.memory.read_large_beside(tell).unwrap();
    world.write("large.yaml", &format!("{}: [", large_policy("new")));
    world.read();
    has_ended.recv().unwrap();
    let (objects, faults) = world.read();
    assert_eq!((objects, faults.len()), (vec!["old".to_owned()], 1));
    world.write("large.yaml", &large_policy("new"));
    assert_eq!(world.read().1, faults, "while it is read again it is what it was");
    has_ended.recv().unwrap();
    assert_eq!(world.read(), (vec!["new".to_owned()], Vec::new()));
}

#[test]
fn a_large_file_whose_times_do_not_tell_is_read_beside_once() {
    let mut world = World::with(&[("large.yaml", &large_policy("old"))]);
    world.read();
    let (told, steps) = mpsc::channel();
    world.memory.read_large_beside(move |step| told.send(step).unwrap()).unwrap();
    world.write("large.yaml", &large_policy("new"));
    let file = fs::File::options().write(true).open(world.path("large.yaml")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3_600)).unwrap();
    world.read();
    assert_eq!([steps.recv().unwrap(), steps.recv().unwrap()], [Step::Begin, Step::End]);
    assert_eq!(world.read(), (vec!["new".to_owned()], Vec::new()));
    assert!(world.memory.large.as_ref().unwrap().is_idle(), "the end of a reading must not lead to the next");
}
