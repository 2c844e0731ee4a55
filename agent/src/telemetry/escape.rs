//! Text of others in a line of ours.

use std::fmt::{self, Display, Write};

/// Shows text without what would end the line, drive a terminal or turn the direction of reading. Names of files, and
/// what others put into messages, may hold all of that.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

/// Escapes what it passes on.
struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

// === impl Escaped ===

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

// === impl Escape ===

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| is_harmful(*c)) {
            write!(self.0, "{}{}", &text[plain..at], c.escape_default())?;
            plain = at + c.len_utf8();
        }
        self.0.write_str(&text[plain..])
    }
}

/// Controls, line separators, and what sets the direction of text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_harms_is_escaped() {
        let text = "a\u{1b}[31m\nb\t\u{9b}c\u{202e}d\u{2066}\u{7f} é 名 \"\\";
        let shown = r#"a\u{1b}[31m\nb\t\u{9b}c\u{202e}d\u{2066}\u{7f} é 名 "\"#;
        assert_eq!(Escaped(text).to_string(), shown);
    }
}
