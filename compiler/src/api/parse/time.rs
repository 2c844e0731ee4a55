//! Timestamps, in the one form in which the API writes them.

use crate::api::Json;

/// Seconds since 1970 of `2026-01-31T23:59:59Z`; `None` of anything else.
///
/// The API writes the times of `metadata` in UTC and without fractions, whatever the client sent.
pub fn seconds(text: &str) -> Option<i64> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0i64, |sum, &digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is written as 60 and counts as the second after it.
    if day < 1 || day > days_of(year, month)? || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_before(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// When an object was last changed, in seconds since 1970, as far as the API server has written it down: the newest
/// `time` in `metadata.managedFields`, or `metadata.creationTimestamp`. Whole seconds, by the API server's clock.
pub fn changed_at(object: &Json) -> Option<i64> {
    let metadata = object.get("metadata")?;
    let time = |object: &Json, key| object.get(key).and_then(Json::as_str).and_then(seconds);
    let managed = metadata.get("managedFields").and_then(Json::as_list).unwrap_or_default();
    managed.iter().filter_map(|entry| time(entry, "time")).max().max(time(metadata, "creationTimestamp"))
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Days from 1970-01-01 to the date. Years are taken to start in March, so that the day of a leap year comes last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2000-02-29T12:30:15Z", Some(951_827_415)),
            ("2026-11-23T09:08:31Z", Some(1_795_424_911)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("0000-01-01T00:00:00Z", Some(-62_167_219_200)),
            ("9999-12-31T23:59:60Z", Some(253_402_300_800)),
            ("2100-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-01-00T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:60:00Z", None),
            ("2026-01-01T00:00:00+01:00", None),
            ("2026-01-01T00:00:00.5Z", None),
            ("2026-01-01t00:00:00z", None),
            ("+026-01-01T00:00:00Z", None),
            ("2026-01-01", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
