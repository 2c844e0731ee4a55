//! The page of `postern matrix -o html` and `postern diff -o html` in a real browser: what it draws, what mouse and keyboard
//! do there, and that names are text.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{agent, repository};
use serde_json::{Value, json};

/// Where the distributions keep a browser that needs no screen.
const BROWSERS: [&str; 3] =
    ["/usr/bin/chromium-headless-shell", "/usr/lib64/chromium-browser/headless_shell", "/usr/bin/chromium"];

/// How many seconds a page may take: the largest here takes two, and some tens beside all other tests.
const BROWSER_PATIENCE: &str = "300";

/// Helps the steps that follow: text of a thing, keys, and a place for what was found.
const HELP: &str = "
const one = (selector) => document.querySelector(selector);
const every = (selector) => [...document.querySelectorAll(selector)];
const text = (selector) => every(selector).map((found) => found.textContent);
const button = (label) => every('button').find((found) => found.textContent.includes(label));
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: name, bubbles: true}));
const type = (field, words) => { field.value = words; field.dispatchEvent(new Event('input')); };
const found = {};
";

fn browser() -> PathBuf {
    let there = BROWSERS.iter().map(PathBuf::from).find(|path| path.exists());
    there.unwrap_or_else(|| panic!("there is none of {BROWSERS:?}"))
}

/// What the browser makes of a page, as HTML.
fn drawn(page: &Path) -> String {
    let home = tempfile::tempdir().unwrap();
    // Its sandbox would take namespaces, which a container may not give; the page is our own.
    let output = Command::new("timeout")
        .args(["--kill-after=5", BROWSER_PATIENCE])
        .arg(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"])
        .args(["--virtual-time-budget=60000", "--window-size=1400,900"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("file://{}", page.display()))
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Takes steps on a page, and gives what they leave in `found`. The page forbids scripts of others, so that this one needs a
/// copy that does not.
fn after(page: &str, steps: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (before, rest) = page.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let script = format!(
        "<script>{HELP}try {{ {steps} }} catch (error) {{ found.error = String(error); }}\n\
         document.title = 'found:' + btoa(unescape(encodeURIComponent(JSON.stringify(found))));</script></body>"
    );
    let copy = folder.path().join("page.html");
    fs::write(&copy, format!("{before}{}", rest.replacen("</body>", &script, 1))).unwrap();
    let html = drawn(&copy);
    let (_, rest) = html.split_once("<title>found:").unwrap_or_else(|| panic!("the steps did not end: {html}"));
    let found = base64(rest.split_once("</title>").unwrap().0);
    serde_json::from_slice(&found).unwrap()
}

/// Reads base64, of which the browser makes text that no markup is in.
fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| {
        let place =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|own| *own == c);
        u32::try_from(place.unwrap_or(0)).unwrap()
    };
    let of_four = |four: &[u8]| {
        let bits = four.iter().fold(0, |bits, c| bits << 6 | digit(*c));
        let padding = four.iter().filter(|c| **c == b'=').count();
        bits.to_be_bytes()[1..4 - padding].to_vec()
    };
    text.as_bytes().chunks(4).flat_map(of_four).collect()
}

fn postern(arguments: &[&str]) -> String {
    let output = Command::new(agent::binary().unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.code().unwrap() < 2, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn three_tiers() -> String {
    let folder = repository::root().join("manifests/examples/13-three-tiers");
    postern(&["matrix", "-f", folder.to_str().unwrap(), "-o", "html"])
}

/// So many Deployments in twenty namespaces; two of three are asked by one other alone.
fn many(deployments: usize) -> String {
    let one = |number: usize| {
        let (name, namespace) = (format!("app-{number}"), format!("team-{}", number % 20));
        let policy = format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
             {{podSelector: {{matchLabels: {{app: {name}}}}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: \
             {{matchLabels: {{app: app-{}}}}}}}], ports: [{{port: 80}}]}}]}}\n",
            (number + 1) % deployments
        );
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{selector: \
             {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}}}}}\n{}",
            if number.is_multiple_of(3) { String::new() } else { policy }
        )
    };
    (0..deployments).map(one).collect()
}

#[test]
fn a_cell_opens_to_the_reasons_by_mouse_and_by_keyboard() {
    let page = three_tiers();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    fs::write(&file, &page).unwrap();
    // As it is, with all that it forbids.
    let html = drawn(&file);
    assert!(html.contains("<td class=\"some wide\"") && html.contains("◐ 5432/TCP"), "{html}");
    let found = after(
        &page,
        "
        const cell = every('td').find((cell) => cell.textContent === '◐ 5432/TCP');
        cell.click();
        found.answer = text('#answer dt, #answer dd');
        found.focused = document.activeElement.id;
        key('Escape');
        found.closed = one('#answer').hidden;
        found.back = document.activeElement === cell;
        key('ArrowUp'); key('ArrowLeft'); key('Home');
        found.at = document.activeElement.getAttribute('aria-label');
        key('Enter');
        found.opened = text('#answer h2');
        key('Escape');
        button('pod/frontend').click();
        found.only = text('tbody tr').length;
        found.to = text('thead th');
        ",
    );
    assert_eq!(found["error"], Value::Null, "{found}");
    let answer = found["answer"].as_array().unwrap();
    let expected = [
        "5432/TCP: allowed",
        "egress of pod/production/backend: isolated by production/backend-policy; allowed by production/backend-policy egress[0]",
        "ingress of pod/production/database: isolated by production/database-policy; allowed by production/database-policy \
         ingress[0]",
        "postern explain pod/production/backend pod/production/database 5432/TCP",
    ];
    assert_eq!(answer[..4], expected.map(Value::from), "{found}");
    assert_eq!((&found["focused"], &found["closed"], &found["back"]), (&json!("answer"), &json!(true), &json!(true)));
    assert_eq!(found["at"], "pod/kube-system/proxy → pod/kube-system/coredns: all");
    assert_eq!(found["opened"], json!(["pod/kube-system/proxy → pod/kube-system/coredns"]));
    assert_eq!((&found["only"], &found["to"][2]), (&json!(6), &json!("to pod/production/frontend")), "{found}");
}

#[test]
fn three_hundred_workloads_are_folded_found_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.yaml");
    fs::write(&file, many(300)).unwrap();
    let found = after(
        &postern(&["matrix", "-f", file.to_str().unwrap(), "-o", "html"]),
        "
        found.folded = text('tbody tr').length;
        type(every('input')[0], 'app-17');
        found.found = text('tbody th.name').filter((name) => name !== '').length;
        one('select').value = 'open';
        one('select').dispatchEvent(new Event('change'));
        type(every('input')[1], 'app-16');
        found.shut = every('td.nothing').length;
        found.pairs = every('td.some, td.all').map((cell) => { cell.click(); return text('#answer h2')[0]; })
            .filter((name) => name.startsWith('deploy/team-17/app-17 '));
        type(every('input')[0], ''); type(every('input')[1], '');
        one('select').value = 'every';
        one('select').dispatchEvent(new Event('change'));
        button('Unfold all').click();
        found.cells = every('td').length;
        ",
    );
    assert_eq!(found["error"], Value::Null, "{found}");
    // The namespaces, and outside.
    assert_eq!((&found["folded"], &found["found"]), (&json!(21), &json!(11)), "{found}");
    assert_eq!(found["shut"], 0, "{found}");
    let pairs = found["pairs"].as_array().unwrap();
    assert!(pairs.contains(&json!("deploy/team-17/app-17 → deploy/team-16/app-16")), "{found}");
    assert!(pairs.iter().all(|pair| pair.as_str().unwrap().contains("/app-16")), "{found}");
    assert!(found["cells"].as_u64().unwrap() > 300 * 300, "{found}");
}

#[test]
fn two_sets_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let all = many(9);
    let (old, new) = (write("old.yaml", &all), write("new.yaml", &all.replace("port: 80}", "port: 81}")));
    let found = after(
        &postern(&["diff", "-f", &new, "--against", &old, "-o", "html"]),
        "
        found.signs = [...new Set(text('td').filter((sign) => sign !== ''))];
        every('td.both')[0].click();
        found.sets = text('#answer h3').map((path) => path.split('/').pop());
        found.said = text('#answer .sets > div > p');
        ",
    );
    assert_eq!(found["error"], Value::Null, "{found}");
    assert_eq!(found["signs"], json!(["± opens 81/TCP; closes 80/TCP"]), "{found}");
    assert_eq!((&found["sets"], &found["said"]), (&json!(["old.yaml", "new.yaml"]), &json!(["◐ 80/TCP", "◐ 81/TCP"])));
}

#[test]
fn names_are_text() {
    let folder = tempfile::tempdir().unwrap();
    // Names of objects are made harmless as they are read; that of a file is as it is.
    let name =
        "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>".replace('/', "\u{2215}");
    let file = folder.path().join(format!("{name}.yaml"));
    fs::write(&file, many(2)).unwrap();
    let page = postern(&["matrix", "-f", file.to_str().unwrap(), "-o", "html"]);
    let found =
        after(&page, "found.title = document.title; found.images = every('img').length; found.of = text('p')[0];");
    assert_eq!((&found["title"], &found["images"]), (&json!("Who may talk to whom"), &json!(0)), "{found}");
    assert!(found["of"].as_str().unwrap().contains(&*name), "{found}");
    // A script that came in all the same is not run by the page as it is.
    let with_script = folder.path().join("page.html");
    fs::write(&with_script, page.replace("</body>", "<script>document.title = 'owned'</script></body>")).unwrap();
    let html = drawn(&with_script);
    assert!(html.contains("<title>Who may talk to whom</title>") && html.contains("<table"), "{html}");
}
