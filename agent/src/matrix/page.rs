//! The matrix as one page for a browser, which asks nobody for anything: what it shows, how, and by which script stands in it.
//!
//! Names of others come into it as data, which the script puts on the page as text and never as markup. In the file the data
//! is JSON without `<`, so that nothing ends the element that holds it; and the page forbids the browser all but its own
//! script and style, by their digests, so that not even a fault of the script would run what a name says.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use compiler::api::escaped;
use compiler::nft::Family;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::changes::{arrivals, changes};
use super::{Cell, Matrix, Party, Reason, side_by_side, text};
use crate::model::Model;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// With more pairs than these the nearest rules are not sought: each may take some milliseconds where a tenant writes large
/// policies.
const MOST_WITH_NEAREST: usize = 5_000;
/// Of so many pairs the reasons are held as they are at a time, before those that are alike become one.
const BATCH: usize = 4_096;

/// What the script shows.
#[derive(Serialize)]
struct Data<'a> {
    /// What the clusters are called: one, or two that are compared.
    sets: &'a [String],
    parties: Vec<PartyData<'a>>,
    /// What is said in several places, which name it by its place here.
    texts: Vec<String>,
    answers: Vec<Answer>,
    pairs: Vec<Pair>,
    /// For each client that is asked about, the place of its pair with each server; -1 where there is none.
    cells: BTreeMap<usize, Vec<i64>>,
    /// Whether the nearest rules are told.
    with_nearest: bool,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct PartyData<'a> {
    name: String,
    namespace: Option<&'a str>,
    /// How many pods it stands for in each cluster.
    pods: Vec<usize>,
    /// How `explain` is asked about it.
    ask: String,
    /// `comes` or `goes`, where it is in one of two clusters only.
    change: Option<&'static str>,
}

/// What there is to say of a pair in one cluster.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Serialize)]
struct Answer {
    /// What is open, in short; a text.
    said: usize,
    kind: Kind,
    parts: Vec<Part>,
}

/// How much is open.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Nothing,
    Some,
    All,
    /// One of the two is not there.
    Absent,
}

/// Ports of which the same is said. All numbers are texts.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Serialize)]
struct Part {
    family: Option<&'static str>,
    ports: usize,
    allowed: bool,
    /// What the client's side says, and the server's: the reason, and what is to be said besides.
    sides: [Vec<usize>; 2],
    asked: usize,
}

/// What is said of a client and a server.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Serialize)]
struct Pair {
    /// The place of the answer in each cluster.
    answers: Vec<usize>,
    /// Of two clusters: what opens, and what closes.
    opens: Option<usize>,
    closes: Option<usize>,
}

/// Things that are held once, by the place that each has.
struct Once<T>(BTreeMap<T, usize>);

/// Writes the page of a matrix of these clusters, which are called by these names.
///
/// # Errors
///
/// Those of the writer.
pub fn write(out: &mut impl Write, matrix: &Matrix, models: &[&Model], sets: &[String]) -> io::Result<()> {
    // `<` is in JSON only within texts.
    let data = serde_json::to_string(&data(matrix, models, sets))?.replace('<', "\\u003c");
    let [style, script] = [STYLE, SCRIPT].map(|text| BASE64_STANDARD.encode(Sha256::digest(text)));
    write!(
        out,
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{style}'; \
         script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'\">
<meta name=\"viewport\" content=\"width=device-width\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>Who may talk to whom</title>
<style>{STYLE}</style>
</head>
<body>
<noscript>This page is drawn by a script. <code>postern matrix</code> and <code>postern diff</code> without \
         <code>-o html</code> print the same as text.</noscript>
<script type=\"application/json\" id=\"data\">{data}</script>
<script>{SCRIPT}</script>
</body>
</html>
"
    )
}

fn data<'a>(matrix: &'a Matrix, models: &[&Model], sets: &'a [String]) -> Data<'a> {
    let with_nearest = matrix.cells.len() * models.len() <= MOST_WITH_NEAREST;
    let (mut texts, mut answers, mut pairs) = (Once::default(), Once::default(), Once::default());
    let changes = changes(matrix);
    let changes: BTreeMap<(usize, usize), _> =
        changes.iter().map(|change| ((change.from, change.to), change)).collect();
    let mut cells: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for batch in matrix.cells.chunks(BATCH) {
        let reasons = side_by_side(batch, |cell| matrix.reasons(models, cell, with_nearest));
        for (cell, reasons) in batch.iter().zip(reasons) {
            let of_model = |(index, reasons)| answers.place(answer(cell, index, reasons, &mut texts));
            let change = changes.get(&(cell.from, cell.to));
            let answers = reasons.into_iter().enumerate().map(of_model).collect();
            let mut said = |open: &super::Open| (!open.is_none()).then(|| texts.place(text::said(open)));
            let opens = change.and_then(|change| said(&change.opens));
            let closes = change.and_then(|change| said(&change.closes));
            let place = pairs.place(Pair { answers, opens, closes });
            let row = cells.entry(cell.from).or_insert_with(|| vec![-1; matrix.parties.len()]);
            row[cell.to] = i64::try_from(place).unwrap_or(-1);
        }
    }
    let changed: BTreeMap<&str, &'static str> =
        arrivals(matrix).map(|(change, party)| (&*party.name, change)).collect();
    let party = |party: &'a Party| PartyData {
        name: escaped(&party.name).into_owned(),
        namespace: party.namespace.as_deref(),
        pods: (0..models.len()).map(|index| party.pods(index).len()).collect(),
        ask: escaped(&party.asked()).into_owned(),
        change: changed.get(&*party.name).copied(),
    };
    Data {
        sets,
        parties: matrix.parties.iter().map(party).collect(),
        texts: texts.in_order(),
        answers: answers.in_order(),
        pairs: pairs.in_order(),
        cells,
        with_nearest,
        notes: matrix.notes.iter().map(|note| escaped(note).into_owned()).collect(),
    }
}

fn answer(cell: &Cell, index: usize, reasons: Vec<Reason>, texts: &mut Once<String>) -> Answer {
    let has = |allowed: bool| reasons.iter().any(|reason| reason.allowed == allowed);
    let kind = match (has(true), has(false)) {
        (true, true) => Kind::Some,
        (true, false) => Kind::All,
        (false, true) => Kind::Nothing,
        (false, false) => Kind::Absent,
    };
    let said = match kind {
        Kind::Absent => "not there".to_owned(),
        Kind::Nothing | Kind::Some | Kind::All => text::said(&cell.open[index]),
    };
    let part = |reason: Reason| {
        let Reason { family, ports, allowed, sides, asked } = reason;
        let sides = sides.map(|why| {
            let quarantined = why.quarantined.into_iter().map(|text| format!("quarantined: {text}"));
            let nearest = why.nearest.map(|text| format!("nearest: {text}"));
            let lines = [why.reason].into_iter().chain(quarantined).chain(nearest);
            lines.map(|line| texts.place(escaped(&line).into_owned())).collect()
        });
        let family = family.map(|family| match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        });
        Part { family, ports: texts.place(ports.to_string()), allowed, sides, asked: texts.place(asked) }
    };
    let parts = reasons.into_iter().map(part).collect();
    Answer { said: texts.place(said), kind, parts }
}

// === impl Once ===

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(BTreeMap::new())
    }
}

impl<T: Ord> Once<T> {
    fn place(&mut self, value: T) -> usize {
        let next = self.0.len();
        *self.0.entry(value).or_insert(next)
    }

    fn in_order(self) -> Vec<T> {
        let mut all: Vec<(T, usize)> = self.0.into_iter().collect();
        all.sort_by_key(|(_, place)| *place);
        all.into_iter().map(|(value, _)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::matrix::Filter;
    use crate::matrix::tests::{CLOSED, SHOP, model};

    fn page(matrix: &Matrix, models: &[&Model], sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let mut page = Vec::new();
        write(&mut page, matrix, models, &sets).unwrap();
        String::from_utf8(page).unwrap()
    }

    fn between<'a>(page: &'a str, begin: &str, end: &str) -> &'a str {
        page.split_once(begin).unwrap().1.split_once(end).unwrap().0
    }

    fn read(page: &str) -> Value {
        serde_json::from_str(between(page, "id=\"data\">", "</script>")).unwrap()
    }

    #[test]
    fn a_cell_holds_what_explain_says() {
        let (open, closed) = (model(SHOP), model(&format!("{SHOP}{CLOSED}")));
        let models = [&open, &closed];
        let matrix = Matrix::of(&models, &Filter::All).unwrap();
        let data = read(&page(&matrix, &models, &["before", "after"]));
        let place = |name: &str| matrix.parties.iter().position(|party| party.name == name).unwrap();
        let text = |value: &Value| {
            data["texts"][usize::try_from(value.as_u64().unwrap()).unwrap()].as_str().unwrap().to_owned()
        };
        let at = |list: &str, value: &Value| data[list][usize::try_from(value.as_u64().unwrap()).unwrap()].clone();
        let row = &data["cells"][place("deploy/shop/api").to_string()];
        let pair = at("pairs", &row[place("sts/shop/db")]);
        assert_eq!((pair["opens"].clone(), text(&pair["closes"])), (Value::Null, "all but 5432/TCP".into()));
        let after = at("answers", &pair["answers"][1]);
        assert_eq!((text(&after["said"]), &after["kind"]), ("5432/TCP".into(), &"some".into()));
        let said: Vec<(String, bool, Vec<String>)> = after["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| {
                let lines = part["sides"].as_array().unwrap().iter().flat_map(|side| side.as_array().unwrap());
                (text(&part["ports"]), part["allowed"].as_bool().unwrap(), lines.map(text).collect())
            })
            .collect();
        let isolated = "isolated by shop/db";
        let near = "nearest: shop/db ingress[0], but for ports: it has sql/TCP";
        let expected = |ports: &str, allowed, lines: &[String]| (ports.to_owned(), allowed, lines.to_vec());
        assert_eq!(
            said,
            [
                expected(
                    "5432/TCP",
                    true,
                    &["not isolated".into(), format!("{isolated}; allowed by shop/db ingress[0]")]
                ),
                expected(
                    "all but 5432/TCP, ICMP",
                    false,
                    &["not isolated".into(), format!("{isolated}; no rule allows it"), near.into()]
                ),
                expected(
                    "ICMP",
                    false,
                    &[
                        "not isolated".into(),
                        format!("{isolated}; no rule allows it"),
                        format!("{near}, and only a rule without ports allows ICMP")
                    ]
                ),
            ]
        );
        // Outside is asked about by an address of it.
        let outside = &data["parties"][place("192.0.2.0/24")];
        assert!(outside["ask"].as_str().unwrap().starts_with("192.0.2."), "{outside}");
    }

    #[test]
    fn names_are_no_markup() {
        let shop = model(&format!("{SHOP}{CLOSED}"));
        let mut matrix = Matrix::of(&[&shop], &Filter::All).unwrap();
        let hostile = "</script><script>alert(1)</script><!--<script>\u{202e}\u{1b}[0m&lt;\"'";
        matrix.parties[0].name = hostile.to_owned();
        matrix.parties[0].namespace = Some(hostile.into());
        matrix.notes.push(hostile.to_owned());
        let harmless = read(&page(&Matrix::of(&[&shop], &Filter::All).unwrap(), &[&shop], &["x"]));
        let page = page(&matrix, &[&shop], &[hostile]);
        let data = between(&page, "id=\"data\">", "</script>");
        assert!(!data.contains('<'), "{data}");
        let read = read(&page);
        let shown = escaped(hostile);
        assert_eq!((&read["sets"][0], &read["notes"][0]), (&hostile.into(), &(*shown).into()));
        assert_eq!(read["parties"][0]["name"], *shown);
        assert_eq!(read["cells"], harmless["cells"]);
        // What stands around the data is the same for everybody.
        assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    }

    #[test]
    fn the_page_asks_nobody_and_makes_no_markup_of_text() {
        let shop = model(SHOP);
        let page = page(&Matrix::of(&[&shop], &Filter::All).unwrap(), &[&shop], &["x"]);
        let policy = between(&page, "Content-Security-Policy\" content=\"", "\">");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        for (part, text) in [("script-src", SCRIPT), ("style-src", STYLE)] {
            let digest = between(policy, &format!("{part} 'sha256-"), "'");
            assert_eq!(BASE64_STANDARD.decode(digest).unwrap(), Sha256::digest(text).to_vec());
        }
        for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch("] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
        for word in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
