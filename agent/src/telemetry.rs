//! Logs: their format, their filter, and errors in one line.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

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

/// Starts to log. What was set up before stays, as in tests that run several agents.
///
/// # Errors
///
/// If the filter cannot be parsed.
pub fn init(config: &LogConfig) -> Result<(), ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.filter)?)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // An error says that there is a logger already.
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// A bare level is about the agent: at `debug` its libraries would tell of every byte. kube logs errors that the agent
/// logs once and better.
fn filter(filter: &str) -> Result<EnvFilter, ParseError> {
    let is_level = filter.parse::<tracing::level_filters::LevelFilter>().is_ok();
    EnvFilter::try_new(if is_level { format!("error,kube_client=off,postern={filter}") } else { filter.to_owned() })
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
