//! Finds the programs that Rust and Go run. They stand in the source as literals, and where they do not, the test fails.

use std::path::Path;

/// What stands for a program of this repository, or for the cargo that runs the test.
const OWN: [&str; 13] = [
    "&script",
    "agent::binary().unwrap()",
    // A file that `.ci/needs` lists by its places.
    "browser()",
    "binary()?",
    "binary().unwrap()",
    "env!(\"CARGO\")",
    "folder.path().join(\"kubectl-postern\")",
    "go_program(\"render\")?",
    "n.postern",
    "repository::control_plane()?",
    "repository::kubelet()?",
    "repository::root().join(\".ci/setup\")",
    "repository::sandbox()?",
];
/// Programs whose arguments name another one.
const WRAPPERS: [&str; 2] = ["unshare", "nsenter"];

pub(crate) fn run_by_rust(file: &str, text: &str) -> Vec<String> {
    let mut programs = Vec::new();
    for call in ["Command::new(", "execv(", "execve(", "execvp(", "execvpe("] {
        for (start, _) in text.match_indices(call) {
            let rest = &text[start + call.len()..];
            // This file has the names of the calls as text.
            if text[start + call.len()..].starts_with('"') && rest[1..].starts_with([',', ']']) {
                continue;
            }
            let argument = argument(rest);
            if OWN.contains(&argument) {
                continue;
            }
            let program = literal(argument).or_else(|| constant(text, argument));
            let program =
                program.unwrap_or_else(|| panic!("{file} runs {argument}, which is neither a literal nor known"));
            if WRAPPERS.contains(&program.as_str()) {
                programs.extend(wrapped(rest));
            }
            programs.push(program);
        }
    }
    // The rest of a wrapper's arguments may stand in a later statement.
    programs.extend(text.split("\"--\", ").skip(1).filter_map(literal));
    programs
}

pub(crate) fn run_by_go(file: &str, text: &str) -> Vec<String> {
    let mut programs = Vec::new();
    for (call, skipped) in [("exec.Command(", 0), ("exec.CommandContext(", 1)] {
        for rest in text.split(call).skip(1) {
            let argument = rest.split(", ").nth(skipped).unwrap_or_default();
            if OWN.contains(&argument) {
                continue;
            }
            let program = literal(argument);
            programs.push(program.unwrap_or_else(|| panic!("{file} runs {argument}, which is not a literal")));
        }
    }
    programs
}

/// The text up to the parenthesis that closes the call.
fn argument(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth < 0
    });
    text[..end.expect("a call is closed")].trim()
}

/// The name of the program that a text begins with as a literal.
fn literal(text: &str) -> Option<String> {
    let (literal, _) = text.strip_prefix('"')?.split_once('"')?;
    Path::new(literal).file_name().map(|name| name.to_string_lossy().into_owned())
}

/// The value of a constant of the same file.
fn constant(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("const {name}: &str = "))?;
    literal(rest)
}

/// The program among the other arguments of a wrapper, if it stands in the same statement.
fn wrapped(statement: &str) -> Option<String> {
    let statement = statement.split([';', '?']).next().unwrap_or_default();
    let literals = statement.split('"').skip(1).step_by(2).skip(1);
    let is_name = |word: &&str| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    literals.filter(is_name).map(str::to_owned).next()
}
