//! The way to the API server, and the files that say who is asking and whom to trust.
//!
//! A kubeconfig and what it names, or the files of a service account, are replaced while the agent runs: a certificate
//! authority is rotated, a client certificate renewed. Before each request they are read (some kilobytes, and requests
//! are minutes apart), and when they have changed the request, and those after it, use a new client. A watch that runs
//! goes on over the connection that it has. Files that cannot be used leave the last client in place: the server may
//! still take it, and a rotation that is half written is whole a moment later.
//!
//! A kubeconfig may name a credential plugin: a program that kube runs and waits for while it makes a client, however
//! long that takes. So clients are made on a thread beside, one at a time, so that a plugin that hangs is started once;
//! whoever needs one waits in bounds, and not at all where it has waited before and there is a last client.

mod attempt;
mod origin;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connect::connect;
use attempt::Attempt;
use origin::Origin;

/// How many watches share a connection: an API server takes 100 at once over HTTP/2, and lets further ones wait.
const SHARE: usize = 64;
/// How often a client is made anew though no file has changed, when the server refuses what it says.
const RENEWAL: Duration = Duration::from_secs(30);
/// How long a client may take to be made, from when that began.
const PATIENCE: Patience = Patience { first: Duration::from_secs(10), other: Duration::from_secs(3) };

/// The way to the API server. Clones are the same one.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

/// A place on a connection. Dropping it leaves it to others.
pub(crate) struct Seat {
    access: Access,
    bench: Arc<()>,
}

struct Shared {
    origin: Origin,
    patience: Patience,
    state: Mutex<State>,
}

/// How long the making of a client is waited for, from its begin.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// By who has none.
    first: Duration,
    /// By who has one, which then is used on: most are made within milliseconds.
    other: Duration,
}

struct State {
    /// The way as the files showed it when they could be used last; `None` before the first time.
    config: Option<Config>,
    /// What the files held then.
    print: u64,
    /// When that was tried last.
    made: Instant,
    /// Why the files are not used as they are now.
    problem: Option<String>,
    /// The making of a client that is under way, or was the last one.
    attempt: Option<Attempt<Purpose>>,
    /// A client that was made and is no bench's yet.
    spare: Option<Client>,
    benches: Vec<Bench>,
}

/// What a client is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To use the files as they are now, of which this is the print.
    Renewal(u64),
    /// To have one more, by the files as they are used.
    Another,
}

/// Watches that share a connection.
struct Bench {
    /// Held by each of them, so that they can be counted.
    token: Arc<()>,
    /// Made when the next request needs it.
    client: Option<Client>,
}

// === impl Access ===

impl Access {
    /// By the default kubeconfig, or else by the service account of the pod.
    ///
    /// # Errors
    ///
    /// If there is neither, or it cannot be used, or its credential plugin does not answer.
    pub async fn by_default() -> Result<Access> {
        Access::new(Origin::by_default(), PATIENCE).await.context("no way to the API server")
    }

    /// By the current context of a kubeconfig.
    ///
    /// # Errors
    ///
    /// If it, or a file that it names, cannot be used, or its credential plugin does not answer.
    pub async fn by_kubeconfig(path: &Path) -> Result<Access> {
        let name = || format!("kubeconfig {}", path.display());
        Access::new(Origin::Kubeconfig(path.to_owned()), PATIENCE).await.with_context(name)
    }

    /// By a context of a kubeconfig, or of the default ones.
    ///
    /// # Errors
    ///
    /// As for [`Access::by_kubeconfig`], and if there is no such context.
    pub async fn by_context(kubeconfig: Option<&Path>, context: &str) -> Result<Access> {
        let origin = Origin::Context { kubeconfig: kubeconfig.map(Path::to_owned), context: context.to_owned() };
        Access::new(origin, PATIENCE).await.with_context(|| format!("context {context}"))
    }

    /// A client whose requests can turn into streams, as `exec` does, by the files as they were read last. It speaks
    /// HTTP/1.1, since nothing is upgraded over HTTP/2.
    ///
    /// # Errors
    ///
    /// If its credential plugin fails, or kube was built without what the files ask for.
    pub(crate) fn streaming_client(&self) -> Result<Client> {
        let config = self.0.state().config.clone().context("the credentials were never read")?;
        Ok(Client::try_from(config)?)
    }

    async fn new(origin: Origin, patience: Patience) -> Result<Access> {
        let print = origin.print();
        let state = State {
            config: None,
            print,
            made: Instant::now(),
            problem: None,
            attempt: None,
            spare: None,
            benches: Vec::new(),
        };
        let access = Access(Arc::new(Shared { origin, patience, state: Mutex::new(state) }));
        // Whatever is wrong with it is to be known at the start.
        access.attempt(Purpose::Renewal(print), patience.first).await?;
        Ok(access)
    }

    /// Always by this client.
    #[cfg(test)]
    pub(crate) fn fixed(client: Client) -> Access {
        let state = State {
            config: Some(Config::new(http::Uri::from_static("http://localhost"))),
            print: Origin::Fixed.print(),
            made: Instant::now(),
            problem: None,
            attempt: None,
            spare: Some(client),
            benches: Vec::new(),
        };
        Access(Arc::new(Shared { origin: Origin::Fixed, patience: PATIENCE, state: Mutex::new(state) }))
    }

    /// A place for a watch, or for another request.
    pub(crate) fn seat(&self) -> Seat {
        let mut state = self.0.state();
        let free = state.benches.iter().find(|bench| Arc::strong_count(&bench.token) <= SHARE);
        let bench = free.map_or_else(Arc::default, |bench| bench.token.clone());
        if free.is_none() {
            state.benches.push(Bench { token: bench.clone(), client: None });
        }
        Seat { access: self.clone(), bench }
    }

    /// Has a client made for this purpose, and waits for it, but no longer than until `patience` after the begin. One
    /// that is being made already is waited for first, or instead if it is for the same.
    async fn attempt(&self, purpose: Purpose, patience: Duration) -> Result<()> {
        loop {
            let attempt = self.0.under_way_or_begun(purpose);
            let ended = attempt.end(patience).await;
            if attempt.is_for(&purpose) || attempt.is_under_way() {
                return ended;
            }
        }
    }
}

// === impl Seat ===

impl Seat {
    /// The client for a request, by the files as they are now. It is made anew if `refused`, too: what a credential
    /// plugin gave may have expired.
    ///
    /// # Errors
    ///
    /// If there is none, not even a last one, and none can be made, or not in time.
    pub(crate) async fn client(&self, refused: bool) -> Result<Client> {
        let Shared { origin, patience, .. } = &*self.access.0;
        let print = origin.print();
        let expired = refused && origin.may_expire();
        let (is_stale, has_client) = {
            let mut state = self.access.0.state();
            let is_stale = print != state.print || (expired && state.made.elapsed() >= RENEWAL);
            (is_stale, state.client_of(&self.bench).is_some())
        };
        if is_stale {
            let patience = if has_client { patience.other } else { patience.first };
            if let Err(error) = self.access.attempt(Purpose::Renewal(print), patience).await {
                self.access.0.state().tell(format!("{error:#}"));
            }
        }
        loop {
            if let Some(client) = self.access.0.state().client_of(&self.bench) {
                return Ok(client);
            }
            // Another bench may be faster, and take what this one waited for.
            self.access.attempt(Purpose::Another, patience.first).await?;
        }
    }
}

// === impl Shared ===

impl Shared {
    /// To be held for moments only.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The making of a client that is under way, whatever for, or else one that begins now.
    fn under_way_or_begun(self: &Arc<Self>, purpose: Purpose) -> Attempt<Purpose> {
        let mut state = self.state();
        if let Some(attempt) = state.attempt.as_ref().filter(|attempt| attempt.is_under_way()) {
            return attempt.clone();
        }
        let config = match purpose {
            Purpose::Renewal(_) => None,
            Purpose::Another => state.config.clone(),
        };
        let shared = Arc::clone(self);
        let attempt = Attempt::begin(purpose, move |waits_for| {
            let made = make(&shared.origin, config, waits_for);
            shared.state().made(purpose, made)
        });
        state.attempt.insert(attempt).clone()
    }
}

/// Makes a client, by the files if there is no config. This blocks for as long as files and a credential plugin take.
fn make(origin: &Origin, config: Option<Config>, waits_for: &OnceLock<String>) -> Result<(Config, Client)> {
    let config = match config {
        Some(config) => config,
        None => Handle::current().block_on(origin.load())?,
    };
    if let Some(command) = config.auth_info.exec.as_ref().and_then(|exec| exec.command.as_ref()) {
        waits_for.get_or_init(|| format!("credential plugin {command}"));
    }
    let client = connect(&config).map_err(anyhow::Error::from_boxed)?;
    Ok((config, client))
}

// === impl State ===

impl State {
    /// The client of a bench, if it has one, or one can be had at once.
    fn client_of(&mut self, bench: &Arc<()>) -> Option<Client> {
        let own = self.benches.iter_mut().find(|known| Arc::ptr_eq(&known.token, bench));
        let own = own.expect("a bench stays as long as somebody sits on it");
        if own.client.is_none() {
            own.client = self.spare.take();
        }
        own.client.clone()
    }

    /// Uses what was made, if it could be.
    fn made(&mut self, purpose: Purpose, made: Result<(Config, Client)>) -> Result<(), String> {
        if let Purpose::Renewal(_) = purpose {
            self.made = Instant::now();
        }
        let (config, client) = made.map_err(|error| format!("{error:#}"))?;
        if let Purpose::Renewal(print) = purpose {
            if print != self.print {
                info!("the credentials for the API server have changed, and are used from now on");
            }
            (self.config, self.print, self.problem) = (Some(config), print, None);
            // Watches that run keep the connections that they have until they end.
            self.benches.iter_mut().for_each(|bench| bench.client = None);
        }
        self.spare = Some(client);
        Ok(())
    }

    /// Says why the files are not used as they are now, once.
    fn tell(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            warn!(error = problem, "the credentials for the API server cannot be used, the last ones are");
            self.problem = Some(problem);
        }
    }
}

#[cfg(test)]
mod tests;
