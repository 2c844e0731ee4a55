//! Logs: their format, their filter, their way to standard error, and errors in one line.
//!
//! ```text
//! event -> filter -> limiter -> line -> queue -> a thread of its own -> standard error
//! ```
//!
//! Whoever logs never waits, and never ends because nobody reads: a line that finds no room is dropped and counted.

mod escape;
mod limit;
#[cfg(test)]
pub(crate) mod logged;
mod queue;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, warn};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

pub use escape::Escaped;
use limit::Limiter;
use queue::Queue;

/// How long the end of the process waits for lines that are not written yet.
const LAST_LINES: Duration = Duration::from_millis(200);

/// The lines of this process, once it logs. There is one standard error, so there is one of this.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// How logs are written, to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// What is logged: a level such as `info` for the agent's own messages, or directives as `RUST_LOG` has them.
    pub filter: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// An error with its causes in one line: `a: b: c`.
///
/// Many errors repeat their cause in their own text; what a text contains already is not said again.
pub struct Causes<'a>(pub &'a (dyn Error + 'a));

/// Makes each event a line of the queue.
struct Lines {
    queue: Arc<Queue>,
    format: LogFormat,
}

/// Starts to log. What was set up before stays, as in tests that run several agents.
///
/// # Errors
///
/// If the filter cannot be parsed, or there can be no thread that writes.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = filter(&config.filter)?;
    let (queue, limiter) = (Arc::new(Queue::default()), Limiter::default());
    let lines = Lines { queue: queue.clone(), format: config.format };
    // What the library itself has to say goes to standard error, and panics where that is closed.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(lines);
    let layer = match config.format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).fmt_fields(text_fields()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(limiter.clone()).with(layer).try_init().is_err() {
        return Ok(());
    }
    let writing = queue.clone();
    thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&writing, &limiter))?;
    // Nobody else sets it, as there is one logger.
    let _ = LOG.set(queue);
    // The usual one waits for whoever reads.
    panic::set_hook(Box::new(|panic| {
        error!("{panic}");
        flush();
    }));
    Ok(())
}

/// Waits until what was logged is written, but not for long.
pub fn flush() {
    if let Some(queue) = LOG.get() {
        queue.flush(LAST_LINES);
    }
}

/// How many lines of the log were dropped since the start.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |queue| queue.dropped())
}

/// Writes a line to standard error, behind what was logged. An agent does not wait long for whoever reads it; where it
/// cannot be written there is nobody to tell.
pub fn last_words(line: &str) {
    match LOG.get() {
        Some(queue) => {
            queue.push(format!("{line}\n").into_bytes());
            queue.flush(LAST_LINES);
        }
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Writes lines as long as the process lives.
fn write_lines(queue: &Queue, limiter: &Limiter) {
    let mut out = io::stderr();
    let mut tell_at = Instant::now();
    // Only within a second after a line others can be left out, so when nothing is logged this thread sleeps.
    let mut deadline = None;
    loop {
        let written = queue.write_next(&mut out, deadline);
        let now = Instant::now();
        deadline = written.map(|_| now + 2 * limit::WINDOW);
        if let Some(lines @ 1..) = written {
            warn!(lines, "{lines} lines were dropped: whoever reads the log was too slow, or gone");
        }
        if written.is_none() || tell_at <= now {
            tell_at = now + limit::WINDOW;
            limiter.tell(now);
        }
    }
}

/// Fields as the library shows them, with the text of others escaped.
fn text_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{}", Escaped(format_args!("{value:?}"))),
        // Where a line of the crate `log` came from.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={}", Escaped(format_args!("{value:?}"))),
    })
    .delimited(" ")
}

/// A bare level is about the agent: at `debug` its libraries would tell of every byte. kube logs errors that the agent
/// logs once and better.
fn filter(filter: &str) -> Result<EnvFilter, ParseError> {
    let is_level = filter.parse::<tracing::level_filters::LevelFilter>().is_ok();
    EnvFilter::try_new(if is_level { format!("error,kube_client=off,postern={filter}") } else { filter.to_owned() })
}

// === impl Lines ===

impl Lines {
    /// The line, with the number of those like it that were left out before it.
    fn line(&self, event: &[u8], left_out: u64) -> Vec<u8> {
        let mut line = event.to_vec();
        if left_out == 0 {
            return line;
        }
        let (end, added) = match self.format {
            LogFormat::Text => ("\n", format!(" suppressed={left_out}\n")),
            LogFormat::Json => ("}\n", format!(",\"suppressed\":{left_out}}}\n")),
        };
        if line.ends_with(end.as_bytes()) {
            line.truncate(line.len() - end.len());
            line.extend_from_slice(added.as_bytes());
        }
        line
    }
}

impl Write for &Lines {
    /// Takes what the formatter gives, which is a whole line.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.queue.push(self.line(event, limit::take_left_out()));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

// === impl Causes ===

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::logged::Logged;
    use super::*;

    #[test]
    fn a_level_is_for_the_agent_only() {
        assert_eq!(
            filter("debug").unwrap().to_string().split(',').collect::<std::collections::BTreeSet<_>>(),
            ["error", "kube_client=off", "postern=debug"].into()
        );
        assert_eq!(filter("kube_client=trace").unwrap().to_string(), "kube_client=trace");
        assert!(filter("postern=loud").is_err());
    }

    #[test]
    fn the_number_of_lines_left_out_is_in_the_line() {
        let line = |format, event: &str, left_out| {
            let lines = Lines { queue: Arc::default(), format };
            String::from_utf8(lines.line(event.as_bytes(), left_out)).unwrap()
        };
        assert_eq!(line(LogFormat::Text, "WARN a\n", 0), "WARN a\n");
        assert_eq!(line(LogFormat::Text, "WARN a\n", 3), "WARN a suppressed=3\n");
        assert_eq!(line(LogFormat::Json, "{\"a\":{}}\n", 3), "{\"a\":{},\"suppressed\":3}\n");
    }

    #[test]
    fn text_of_others_stays_in_its_line() {
        let out = Logged::default();
        let writer = out.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).fmt_fields(text_fields());
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\u{1b}[2J\u{202e}\nb";
            warn!(object = %name, quoted = name, n = 1, "file {name}");
        });
        let text = out.text();
        let name = r"a\u{1b}[2J\u{202e}\nb";
        assert!(text.ends_with(&format!(" file {name} object={name} quoted=\"{name}\" n=1\n")), "{text}");
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the list: {0}")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("no connection")]
        struct Middle(#[source] io::Error);

        let error = Outer(Middle(io::Error::other("refused")));
        assert_eq!(Causes(&error).to_string(), "cannot read the list: no connection: refused");
    }
}
