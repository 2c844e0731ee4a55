//! `postern denials`: what was refused lately, by the word of the agent of this node.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Exit;
use super::output::record;
use super::tether::tether;
use crate::args::{DenialsArgs, DenialsFilterArgs, OutputArg};
use crate::denials::{Asked, Denial, Denials, PATH};
use crate::telemetry::Escaped;

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked for more.
const INTERVAL: Duration = Duration::from_millis(500);
/// The longest answer: ten thousand denials, each of which names a handful of policies.
const LONGEST: usize = 64 * 1024 * 1024;

pub(super) fn run(args: DenialsArgs) -> Result<Exit> {
    let DenialsArgs { filter, socket, tethered } = args;
    let DenialsFilterArgs { since, follow, pod, namespace, output } = filter;
    if tethered {
        tether()?;
    }
    if let Some(pod) = &pod {
        ensure!(pod.split('/').count() == 2, "--pod {pod:?} is not NAMESPACE/NAME");
    }
    let mut asked = Asked { since: Some(start(since)?), after: 0, pod, namespace };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut out = io::stdout();
        let mut told = None;
        loop {
            let Denials { number, note, denials } = ask(&socket, &asked).await?;
            if told != note {
                note.iter().for_each(|note| eprintln!("note: {}", Escaped(note)));
                told = note;
            }
            for denial in &denials {
                match output.notation() {
                    None => writeln!(out, "{}", text(denial))?,
                    Some(notation) => record(&mut out, notation, denial)?,
                }
            }
            out.flush()?;
            if !follow {
                if denials.is_empty() && output == OutputArg::Text {
                    eprintln!("note: nothing of this kind was refused since then, as far as this agent was told");
                }
                return Ok(Exit::Done);
            }
            // An agent that has started anew counts anew.
            asked.after = if number < asked.after { 0 } else { number };
            tokio::time::sleep(INTERVAL).await;
        }
    })
}

/// So long ago.
fn start(since: SignedDuration) -> Result<Timestamp> {
    ensure!(!since.is_negative(), "--since {since} lies ahead");
    Timestamp::now().checked_sub(since).with_context(|| format!("--since {since} is too long ago"))
}

async fn ask(socket: &Path, asked: &Asked) -> Result<Denials> {
    let asking = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let body = Full::new(Bytes::from(serde_json::to_vec(asked)?));
        let request = Request::post(PATH).header("host", "postern").body(body)?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
        driver.abort();
        let body = body.to_bytes();
        if !status.is_success() {
            bail!("it answers {status}: {}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(serde_json::from_slice(&body)?)
    };
    let answer = match timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow::anyhow!("it does not answer within {} s", PATIENCE.as_secs())),
    };
    answer.with_context(|| {
        let path = socket.display();
        format!("cannot ask the agent at {path} (it takes root on the node, or kubectl exec in the agent's pod)")
    })
}

/// `2026-01-31T12:00:00Z 3x ingress shop/web (10.0.0.1) -> shop/db (10.0.0.2) 5432/TCP: policy, isolated by shop/db`
fn text(denial: &Denial) -> String {
    let Denial { last, count, direction, reason, source, destination, isolated_by, quarantined, link, .. } = denial;
    let at = last.strftime("%Y-%m-%dT%H:%M:%SZ");
    let what = denial.port_and_protocol();
    let mut text = format!("{at} {count}x {direction} {source} -> {destination} {what}: {reason}");
    if !isolated_by.is_empty() {
        text.push_str(&format!(", isolated by {}", isolated_by.join(", ")));
    }
    for policy in quarantined {
        text.push_str(&format!("; {policy}"));
    }
    if let (true, Some(link)) = (isolated_by.is_empty(), link) {
        text.push_str(&format!(", came by {link}"));
    }
    if let Some(nearest) = &denial.nearest {
        text.push_str(&format!("; nearest: {nearest}"));
    }
    if denial.allowed_now == Some(true) {
        text.push_str("; WOULD BE ALLOWED NOW");
    }
    Escaped(&text).to_string()
}
