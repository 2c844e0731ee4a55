//! Records for programs: what a command says, a line of JSON or a document of YAML each, of the same fields.

use std::io::Write;

use serde::Serialize;

use crate::args::Notation;

/// Writes one record.
///
/// # Errors
///
/// Those of the writer.
pub fn record(out: &mut impl Write, notation: Notation, value: &impl Serialize) -> anyhow::Result<()> {
    match notation {
        Notation::Json => {
            serde_json::to_writer(&mut *out, value)?;
            writeln!(out)?;
        }
        Notation::Yaml => {
            // What follows a mark of three dashes is whole when the next one comes, or the end.
            let text = serde_saphyr::to_string(value)?;
            write!(out, "---\n{text}{}", if text.ends_with('\n') { "" } else { "\n" })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn yaml_says_what_json_says() {
        let texts = [
            "yes",
            "no",
            "~",
            "null",
            "0x1f",
            "1e3",
            "012",
            "1:30",
            "- a",
            "a: b",
            "#",
            " x ",
            "",
            "a\nb\n",
            "\u{202e}\u{1b}",
            "{}",
            "[",
            "*a",
            "&a",
            "!!str",
            "%",
            "@",
            "`",
            "'\"",
            "---",
            "é 名",
            "2026-01-31T12:00:00Z",
            "tab\t",
            "\\",
            "a\r\nb",
        ];
        let value = json!({"texts": texts, "none": null, "empty": [[], {}], "deep": [{"a": [1, -2.5, true]}, [["x"]]],
            "no": "key", "1": {"y": u64::MAX}});
        let mut written = Vec::new();
        record(&mut written, Notation::Yaml, &value).unwrap();
        record(&mut written, Notation::Yaml, &value).unwrap();
        let written = String::from_utf8(written).unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&written).unwrap();
        assert_eq!(read, [value.clone(), value], "{written}");
    }

    #[test]
    fn fields_keep_their_order() {
        #[derive(Serialize)]
        struct Two {
            src: u8,
            allowed: bool,
        }
        let mut written = Vec::new();
        record(&mut written, Notation::Yaml, &Two { src: 1, allowed: true }).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "---\nsrc: 1\nallowed: true\n");
    }
}
