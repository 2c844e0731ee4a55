//! What is expected of packets, in lines such as `shop/client -> shop/web 80/TCP: allowed`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use compiler::nft::Family;
use lab::{Lab, Outcome, ProbeOptions, Protocol};
use postern::probes::ProbeProtocol;

/// How long silence is listened to: three tries of half a second, which are longer than the second after which a kernel
/// asks again for a neighbour.
const OPTIONS: ProbeOptions = ProbeOptions { window: Duration::from_millis(500), tries: 3, concurrency: 1_024 };
/// How long an answer is waited for where one is expected.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long what is expected may take to become true, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Who asks.
    pub source: &'a str,
    /// Who is asked.
    pub destination: &'a str,
    /// `80/TCP` or `ICMP`
    pub port: &'a str,
    /// What is expected of it.
    pub expected: Outcome,
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// If it is not of that form.
    pub fn read(text: &'a str) -> Result<Line<'a>> {
        let (question, expected) = text.split_once(": ").context("no expectation")?;
        let [source, "->", destination, port] = question.split(' ').collect::<Vec<_>>()[..] else {
            bail!("{text:?} is not of the form `source -> destination port/protocol: expectation`");
        };
        let expected = match expected {
            "allowed" => Outcome::Allowed,
            "refused" => Outcome::Refused,
            "rejected" => Outcome::Rejected,
            _ => bail!("{expected:?} is neither allowed nor refused nor rejected"),
        };
        Ok(Line { source, destination, port, expected })
    }
}

/// Sends the packets that the lines speak of, in each family that both ends have, and holds what became of them
/// against what is expected. `addresses` knows the ends by name.
///
/// # Errors
///
/// What came out otherwise, line by line.
pub async fn check(lab: &Lab, addresses: impl Fn(&str) -> Result<Vec<IpAddr>>, lines: &[&str]) -> Result<()> {
    ask(lab, addresses, lines, ANSWER_WITHIN).await
}

async fn ask(
    lab: &Lab,
    addresses: impl Fn(&str) -> Result<Vec<IpAddr>>,
    lines: &[&str],
    patience: Duration,
) -> Result<()> {
    let mut probes = Vec::new();
    let (mut expected, mut texts) = (Vec::new(), Vec::new());
    for text in lines {
        let line = Line::read(text)?;
        let before = probes.len();
        for source in addresses(line.source)? {
            for destination in addresses(line.destination)? {
                if Family::of(source) == Family::of(destination) {
                    probes.push(probe(lab, source, destination, line.port).with_context(|| (*text).to_owned())?);
                    expected.push(line.expected.clone());
                    texts.push(format!("{text} ({source} -> {destination})"));
                }
            }
        }
        ensure!(probes.len() > before, "{text}: the ends have no family in common");
    }
    let send = async |asked: &[usize]| {
        let asked: Vec<lab::Probe> = asked.iter().map(|index| probes[*index].clone()).collect();
        lab::probe(&asked, &OPTIONS).await
    };
    let outcomes = patiently(&expected, patience, send).await;
    let tell =
        |((line, expected), outcome): (_, &Outcome)| (expected != outcome).then(|| format!("{line}, but is {outcome}"));
    let wrong: Vec<String> = texts.iter().zip(&expected).zip(&outcomes).filter_map(tell).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Sends probes, by their numbers, and those again that are still without the answer that is expected: on a loaded
/// machine it may be late, and the port of its server may still be in use by the server before.
pub(crate) async fn patiently(
    expected: &[Outcome],
    patience: Duration,
    send: impl AsyncFn(&[usize]) -> Vec<Outcome>,
) -> Vec<Outcome> {
    let begun = Instant::now();
    let mut open: Vec<usize> = (0..expected.len()).collect();
    let mut outcomes = vec![Outcome::Refused; expected.len()];
    loop {
        for (index, outcome) in open.iter().zip(send(&open).await) {
            outcomes[*index] = outcome;
        }
        open.retain(|index| match outcomes[*index] {
            Outcome::Refused => expected[*index] != Outcome::Refused,
            Outcome::Error(_) => true,
            Outcome::Allowed | Outcome::Rejected => false,
        });
        if open.is_empty() || begun.elapsed() >= patience {
            return outcomes;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same, tried again until it is so.
///
/// # Errors
///
/// What is still otherwise when time is up.
pub async fn until(lab: &Lab, addresses: impl Fn(&str) -> Result<Vec<IpAddr>>, lines: &[&str]) -> Result<()> {
    let begun = Instant::now();
    loop {
        match ask(lab, &addresses, lines, Duration::ZERO).await {
            Err(_) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
            done => return done,
        }
    }
}

fn probe(lab: &Lab, source: IpAddr, destination: IpAddr, port: &str) -> Result<lab::Probe> {
    let words = postern::probes::Probe::from_words(&source.to_string(), &destination.to_string(), port);
    let words = words.map_err(anyhow::Error::msg)?;
    let protocol = match words.protocol {
        ProbeProtocol::Tcp => Protocol::Tcp,
        ProbeProtocol::Udp => Protocol::Udp,
        ProbeProtocol::Sctp => Protocol::Sctp,
        ProbeProtocol::Icmp => Protocol::Icmp,
    };
    let end = |address| lab.endpoint(address).with_context(|| format!("nobody has {address}"));
    Ok(lab::Probe::new(end(source)?, end(destination)?, protocol, words.port.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_or_refused() {
        let line = Line::read("shop/a -> 10.0.0.1 80/TCP: rejected").unwrap();
        let expected = Outcome::Rejected;
        assert_eq!(line, Line { source: "shop/a", destination: "10.0.0.1", port: "80/TCP", expected });
        for wrong in ["a -> b 80/TCP", "a -> b 80/TCP: perhaps", "a to b 80/TCP: allowed", "a -> b 80 TCP: allowed"] {
            assert!(Line::read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_what_may_still_come_is_asked_again() {
        let expected = [Outcome::Allowed, Outcome::Refused, Outcome::Refused, Outcome::Allowed];
        let rounds = std::cell::RefCell::new(Vec::new());
        let send = async |numbers: &[usize]| {
            rounds.borrow_mut().push(numbers.to_vec());
            let first = rounds.borrow().len() == 1;
            let outcome = |number: &usize| match number {
                0 if first => Outcome::Refused,
                1 if first => Outcome::Error("in use".to_owned()),
                2 => Outcome::Allowed,
                3 => Outcome::Rejected,
                number => expected[*number].clone(),
            };
            numbers.iter().map(outcome).collect()
        };
        let outcomes = patiently(&expected, PATIENCE, send).await;
        assert_eq!(outcomes, [Outcome::Allowed, Outcome::Refused, Outcome::Allowed, Outcome::Rejected]);
        assert_eq!(*rounds.borrow(), [vec![0, 1, 2, 3], vec![0, 1]]);
    }
}
