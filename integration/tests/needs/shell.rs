//! Finds the programs that shell scripts run: the words where a command may stand, which are neither of the shell nor
//! functions of the script. Of the shell's grammar this knows what the scripts here use.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// Words after which a command may stand.
const BEFORE_COMMANDS: [&str; 11] = ["!", "do", "elif", "else", "env", "exec", "if", "then", "until", "while", "{"];
const OF_THE_SHELL: [&str; 38] = [
    ".", ":", "[", "[[", "]]", "break", "case", "cd", "command", "compgen", "continue", "declare", "done", "echo",
    "esac", "exit", "export", "fi", "for", "in", "kill", "local", "mapfile", "printf", "pwd", "read", "return", "set",
    "shift", "source", "test", "trap", "true", "type", "umask", "unset", "wait", "}",
];
/// What cargo has of itself. Any other subcommand is a program of its own.
const OF_CARGO: [&str; 9] = ["bench", "build", "clippy", "doc", "fetch", "fmt", "install", "run", "test"];

/// The programs that a script runs, without those that it looks for itself by `command -v` and can do without.
pub(crate) fn run_by_script(text: &str) -> Vec<String> {
    let mut found = Found::default();
    found.scan(&mut text.chars().peekable());
    let mut programs: BTreeSet<String> = BTreeSet::new();
    if let Some(shell) = text.lines().next().and_then(|line| line.strip_prefix("#!/usr/bin/env ")) {
        programs.extend(["env".to_owned(), shell.to_owned()]);
    }
    for word in &found.commands {
        let is_path_or_value = word.contains('$') || word.starts_with(".ci/");
        if !is_path_or_value && !found.functions.contains(word) {
            programs
                .insert(Path::new(word).file_name().map_or(word.clone(), |name| name.to_string_lossy().into_owned()));
        }
    }
    let is_dispensable = |program: &String| text.contains(&format!("command -v {program} "));
    programs
        .into_iter()
        .filter(|program| !OF_THE_SHELL.contains(&program.as_str()) && !is_dispensable(program))
        .collect()
}

/// The recipes of a Makefile as a script, a line each.
pub(crate) fn recipes(makefile: &str) -> String {
    let lines = makefile.lines().filter_map(|line| line.strip_prefix('\t'));
    let lines =
        lines.map(|line| line.trim_start_matches('@').replace("$$", "\u{0}").replace("$(", "${").replace('\u{0}', "$"));
    lines.map(|line| line + "\n").collect()
}

#[derive(Default)]
struct Found {
    commands: Vec<String>,
    functions: BTreeSet<String>,
}

/// Where in a script the scan is.
#[derive(Default)]
struct Place {
    word: String,
    /// A command may stand here.
    at_command: bool,
    /// The next word is where a redirection leads.
    at_target: bool,
    /// The word before was `cargo`.
    after_cargo: bool,
    /// How many `case` are open, and whether a pattern of one stands here.
    cases: usize,
    in_pattern: bool,
    heredoc: Option<String>,
}

impl Found {
    /// Scans up to the parenthesis that closes what was opened before, or to the end.
    fn scan(&mut self, text: &mut Peekable<Chars<'_>>) {
        let mut place = Place { at_command: true, ..Place::default() };
        while let Some(c) = text.next() {
            match c {
                '#' if place.word.is_empty() => while text.next_if(|c| *c != '\n').is_some() {},
                '\\' => {
                    if let Some(escaped) = text.next().filter(|c| *c != '\n') {
                        place.word.push(escaped);
                    }
                }
                '\'' => place.word.extend(text.by_ref().take_while(|c| *c != '\'')),
                '"' => self.quoted(text, &mut place.word),
                '$' => self.expansion(text, &mut place.word),
                '(' if place.word.ends_with('=') => self.words(text),
                '(' if !place.word.is_empty() => {
                    assert_eq!(text.next(), Some(')'), "{} is neither a function nor a list", place.word);
                    self.functions.insert(std::mem::take(&mut place.word));
                    place.at_command = true;
                }
                ')' if place.in_pattern => {
                    place.word.clear();
                    place.in_pattern = false;
                    place.at_command = true;
                }
                '<' | '>' => {
                    if place.word.chars().all(|c| c.is_ascii_digit()) {
                        place.word.clear();
                    }
                    self.end_word(&mut place);
                    place.at_target = false;
                    let mut operator = String::from(c);
                    while let Some(more) = text.next_if(|c| "<>&|".contains(*c)) {
                        operator.push(more);
                    }
                    if text.next_if_eq(&'(').is_some() {
                        self.scan(text);
                    } else if operator == "<<" {
                        while let Some(letter) = text.next_if(|c| c.is_ascii_alphabetic() || *c == '\'') {
                            place.heredoc.get_or_insert_default().extend((letter != '\'').then_some(letter));
                        }
                    } else {
                        place.at_target = true;
                    }
                }
                ';' if text.next_if_eq(&';').is_some() => {
                    self.end_word(&mut place);
                    place.in_pattern = place.cases > 0;
                }
                '(' => self.scan(text),
                ' ' | '\t' => self.end_word(&mut place),
                ')' | '\n' | ';' | '|' | '&' => {
                    self.end_word(&mut place);
                    if c == ')' {
                        return;
                    }
                    place.at_command = !place.in_pattern;
                    place.after_cargo = false;
                    if c == '\n'
                        && let Some(end) = place.heredoc.take()
                    {
                        while line(text).is_some_and(|line| line != end) {}
                    }
                }
                c => place.word.push(c),
            }
        }
        self.end_word(&mut place);
    }

    fn end_word(&mut self, place: &mut Place) {
        let word = std::mem::take(&mut place.word);
        if word.is_empty() || std::mem::take(&mut place.at_target) {
            return;
        }
        if word == "esac" {
            place.cases -= 1;
            place.in_pattern = false;
        }
        if word == "in" && !place.at_command && place.cases > 0 {
            place.in_pattern = true;
        }
        if place.in_pattern {
            return;
        }
        if std::mem::take(&mut place.after_cargo) && !word.starts_with(['-', '$']) && !OF_CARGO.contains(&word.as_str())
        {
            place.after_cargo = word.starts_with('+');
            if !place.after_cargo {
                self.commands.push(format!("cargo-{word}"));
            }
            return;
        }
        if !place.at_command || is_assignment(&word) || word.starts_with('-') || word.contains("[@]") {
            return;
        }
        place.cases += usize::from(word == "case");
        place.after_cargo = word == "cargo";
        place.at_command = BEFORE_COMMANDS.contains(&word.as_str());
        if !place.at_command || word == "env" {
            self.commands.push(word);
        }
    }

    /// The rest of a quoted text, and the commands in it.
    fn quoted(&mut self, text: &mut Peekable<Chars<'_>>, word: &mut String) {
        while let Some(c) = text.next() {
            match c {
                '"' => return,
                '\\' => word.extend(text.next()),
                '$' => self.expansion(text, word),
                c => word.push(c),
            }
        }
    }

    /// What stands after a dollar sign.
    fn expansion(&mut self, text: &mut Peekable<Chars<'_>>, word: &mut String) {
        word.push('$');
        if text.next_if_eq(&'(').is_some() {
            if text.peek() == Some(&'(') {
                // Arithmetic has no commands.
                let mut depth = 1;
                for c in text.by_ref() {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    if depth == 0 {
                        break;
                    }
                }
            } else {
                self.scan(text);
            }
        } else if text.next_if_eq(&'{').is_some() {
            word.extend(text.by_ref().take_while(|c| !")}".contains(*c)));
        } else if text.next_if_eq(&'\'').is_some() {
            text.by_ref().take_while(|c| *c != '\'').for_each(drop);
        }
    }

    /// The words of a list, which are no commands but may have some in them.
    fn words(&mut self, text: &mut Peekable<Chars<'_>>) {
        let mut word = String::new();
        while let Some(c) = text.next() {
            match c {
                ')' => return,
                '"' => self.quoted(text, &mut word),
                '$' => self.expansion(text, &mut word),
                _ => {}
            }
        }
    }
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn line(text: &mut Peekable<Chars<'_>>) -> Option<String> {
    text.peek()?;
    Some(text.by_ref().take_while(|c| *c != '\n').collect())
}

#[test]
fn finds_commands_wherever_they_stand() {
    let script = "#!/usr/bin/env bash
a=$(b1 \"$(b2 x)\" | b3) # no
own() { b4 || return 1; }
if ! b5 -x; then X=1 b6 >$(b7) 2>&1 && own; else exec b8; fi
case $a in c | d) b9 ;; *) own ;; esac
for x in c \"$(b10)\"; do env -i X=y b11; done
list=(c $(b12)); n=$((a + (1)))
b13 <<END
c
END
command -v b14 >/dev/null && b14 c
mapfile -t x < <(b15 'c' | /sbin/b16)
cargo fmt; cargo +nightly b17
\"$a\" c; \"${list[@]}\" b18; .ci/c
";
    let expected: BTreeSet<String> = (1..=18).filter(|n| ![14, 17].contains(n)).map(|n| format!("b{n}")).collect();
    let others = ["bash", "env", "cargo", "cargo-b17"].map(str::to_owned);
    assert_eq!(BTreeSet::from_iter(run_by_script(script)), expected.into_iter().chain(others).collect());
}
