//! The pages of `docs/` as their readers use them: commands are run where the page says that they run, and print what stands
//! there; the table that is explained is the one that is compiled.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::agent::binary;
use integration::node::Node;
use integration::{denials, repository};
use lab::isolated;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// What stands for parts of a line that are other each time, and for lines that are left out.
const LEFT_OUT: &str = "...";

fn page(name: &str) -> String {
    fs::read_to_string(repository::root().join("docs").join(name)).unwrap()
}

/// The blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let fence = format!("\n```{language}\n");
    let begins: Vec<usize> = page.match_indices(&fence).map(|(at, _)| at + fence.len()).collect();
    begins.into_iter().map(|begin| page[begin..].split_once("\n```").unwrap().0)
}

/// The commands of a page, each with the lines that stand below it.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks(page, "console").flat_map(str::lines) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => panic!("{line} stands below no command"),
        }
    }
    commands
}

/// Whether a line is one of a page, but for what is left out there.
fn is_as(line: &str, written: &str) -> bool {
    let mut parts = written.split(LEFT_OUT);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        let Some((_, after)) =
            rest.split_once(part).filter(|_| !part.is_empty()).or(part.is_empty().then_some(("", "")))
        else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

/// Whether the lines of a page are printed in their order. Between those with a line of dots there may be others.
fn is_printed(printed: &str, written: &[String]) -> bool {
    let mut lines = printed.lines();
    let mut may_skip = false;
    for line in written {
        if line.trim() == LEFT_OUT {
            may_skip = true;
        } else if may_skip {
            if !lines.any(|printed| is_as(printed.trim_end(), line)) {
                return false;
            }
            may_skip = false;
        } else if !lines.next().is_some_and(|printed| is_as(printed.trim_end(), line)) {
            return false;
        }
    }
    may_skip || lines.next().is_none()
}

#[test]
fn lines_with_dots_are_like_others() {
    assert!(is_as("a 1 b 2", "a ... b ...") && is_as("a 1 b 2", "a 1 b 2") && is_as("x", "..."));
    assert!(!is_as("a 1 c 2", "a ... b ...") && !is_as("a 1 b 2", "a ... b") && !is_as("ba", "a"));
    let written = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(is_printed("a\nb\nc\n", &written(&["a", "...", "c"])) && is_printed("a\nb\n", &written(&["a", "..."])));
    assert!(!is_printed("a\nb\n", &written(&["a"])) && !is_printed("a\n", &written(&["...", "b"])));
}

/// `postern` as it is on the path of a node, where flags say what a test has elsewhere.
fn on_the_path(folder: &Path, node: &Node) {
    let (postern, kubeconfig, socket) = (binary().unwrap(), node.api.kubeconfig(), node.agent.socket());
    let [postern, kubeconfig, socket] = [&postern, &kubeconfig, &socket].map(|path| path.display());
    let script = format!(
        "#!/bin/sh\ncommand=$1; shift\ncase $command in\n\
         denials) exec {postern} denials --socket {socket} \"$@\" ;;\n\
         explain | flows) exec {postern} $command --kubeconfig {kubeconfig} \"$@\" ;;\n\
         *) exec {postern} $command \"$@\" ;;\nesac\n"
    );
    let file = folder.join("postern");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_walk_goes_as_it_says() {
    isolated(async {
        Node::run(async |mut node: Node| {
            let walk = page("why-is-my-packet-dropped.md");
            let objects = blocks(&walk, "yaml").next().unwrap();
            node.api.create_namespace("shop", &[]).await.unwrap();
            node.api.apply(&format!("---\n{objects}\n")).await.unwrap();
            // The isolated pod last: else its peer may be refused until the agent knows it too, and that is told of.
            for (name, last) in [("shop/web", 3), ("shop/api", 4), ("shop/db", 2)] {
                node.attach(name, &[IpAddr::from([10, 244, 0, last])]).await.unwrap();
                node.report(name).await.unwrap();
            }
            node.until(&["shop/api -> shop/db 5432/TCP: allowed", "shop/web -> shop/db 5432/TCP: refused"])
                .await
                .unwrap();
            denials::until(&node.agent, "ingress policy shop/web -> shop/db 5432/TCP by shop/db").await.unwrap();
            // A connection that stays.
            let to = SocketAddr::from(([10, 244, 0, 2], 5432));
            let [server, client] = ["shop/db", "shop/api"].map(|name| node.lab.pod(name).unwrap().clone());
            let listener = server.run(|| TcpListener::bind(to)).unwrap().unwrap();
            let stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
            let folder = tempfile::tempdir().unwrap();
            on_the_path(folder.path(), &node);
            let path = format!("{}:{}:/usr/sbin", folder.path().display(), std::env::var("PATH").unwrap());
            let mut wrong = String::new();
            for (command, written) in commands(&walk) {
                let output = Command::new("sh").args(["-c", &command]).env("PATH", &path).stdin(Stdio::null()).output();
                let output = output.unwrap();
                let printed = String::from_utf8(output.stdout).unwrap();
                if !is_printed(&printed, &written) {
                    let told = String::from_utf8_lossy(&output.stderr);
                    wrong += &format!("$ {command}\n{printed}{told}\ninstead of\n{}\n\n", written.join("\n"));
                }
            }
            assert!(wrong.is_empty(), "{wrong}");
            drop((listener, stream));
        })
        .await
        .unwrap();
    });
}

#[test]
fn the_table_is_the_one_that_is_compiled() {
    let page = page("the-table.md");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, blocks(&page, "yaml").next().unwrap()).unwrap();
    let output = Command::new(binary().unwrap())
        .args(["compile", "--node", "node-1", "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compiled = String::from_utf8(output.stdout).unwrap();
    // Where one block ends and the next begins there may be an empty line or none.
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let explained: Vec<String> = blocks(&page, "nft").flat_map(lines).collect();
    assert_eq!(explained, lines(&compiled));
}
