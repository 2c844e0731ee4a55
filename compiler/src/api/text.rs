//! Texts of objects, made fit to be printed.

use std::borrow::Cow;

/// A text whose control characters, and those that turn the direction of writing, are written as escapes.
///
/// Names and texts come from whoever may write an object. On a terminal they must not move the cursor or set colours,
/// and in a log they must not begin a line.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 8), |mut printed, c| {
            if is_unprintable(c) {
                printed.extend(c.escape_default())
            } else {
                printed.push(c)
            }
            printed
        })
        .into()
}

fn is_unprintable(c: char) -> bool {
    let separates_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let turns_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || separates_lines || turns_direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_is_written_out() {
        assert_eq!(escaped("shop/wéb"), "shop/wéb");
        assert_eq!(
            escaped("a\u{1b}[2J\r\nb\0\u{9b}\u{202e}c\u{2028}"),
            "a\\u{1b}[2J\\r\\nb\\u{0}\\u{9b}\\u{202e}c\\u{2028}"
        );
    }
}
