//! An API server that fails in the ways in which a real one cannot be made to fail.
//!
//! It serves the objects that a test gives it: lists, watches and streaming lists of the kinds that the agent follows, with
//! versions, bookmarks, field selectors of nodes and simple label selectors, over TLS by HTTP/2 and HTTP/1.1, with certificates of its own that
//! can be changed. What it has in common with the real one is held against that by a test. In front of it is a
//! [`Relay`], for what networks do.

mod certificates;
mod serve;
mod store;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::relay::{Relay, Way};
use certificates::Authority;
use serve::serve;
use store::Store;

/// How the server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It knows of nothing that happens from now on, like a server behind its peers: watches bring nothing, and whoever
    /// asks for more than it knows gets 504.
    Lag,
    /// The same, and it gives old lists also to those who ask for newer ones.
    LagUnsaid,
    /// Every watch ends in good order right after its begin.
    Cut,
    /// It takes requests and never answers; watches that are open have no word more.
    Stall,
    /// Watches are answered 410 Gone.
    Gone,
    /// Watches begin, and then tell of 410 Gone.
    GoneInWatch,
    /// Everything is answered by a redirect to itself.
    Redirect,
    /// Everything is answered 429, with the wish to be left alone for a second.
    Busy,
    /// Everything is answered 500.
    Internal,
    /// Watches send events of unknown types, with objects of odd types and without a name.
    Odd,
    /// Watches send what is no JSON.
    Garbage,
}

/// A running server. Dropping it ends it.
pub struct FakeApi {
    shared: Arc<Shared>,
    tls: RustlsConfig,
    relay: Relay,
    folder: TempDir,
    authority: Authority,
    task: JoinHandle<std::io::Result<()>>,
}

/// What the test and the requests share.
struct Shared {
    state: Mutex<State>,
    /// Wakes the watches when the state has changed.
    changed: watch::Sender<()>,
    requests: AtomicU64,
}

struct State {
    store: Store,
    /// The fault, and the version that the store had when it began.
    fault: Option<(Fault, u64)>,
}

// === impl FakeApi ===

impl FakeApi {
    /// Starts a server without objects.
    ///
    /// # Errors
    ///
    /// If it has no port or no certificate.
    pub async fn start() -> Result<FakeApi> {
        let state = Mutex::new(State { store: Store::default(), fault: None });
        let shared = Arc::new(Shared { state, changed: watch::Sender::new(()), requests: AtomicU64::new(0) });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let relay = Relay::start(listener.local_addr()?).await?;
        let authority = Authority::new()?;
        let tls = RustlsConfig::from_config(authority.server()?);
        let router = Router::new().fallback(serve).with_state(shared.clone());
        let server = axum_server::from_tcp_rustls(listener, tls.clone())?;
        let task = tokio::spawn(server.serve(router.into_make_service()));
        let api = FakeApi { shared, tls, relay, folder: TempDir::with_prefix("postern-fake-api-")?, authority, task };
        api.write_credentials()?;
        api.write_kubeconfig(api.relay.address())?;
        Ok(api)
    }

    /// The kubeconfig, which names the files of the certificates.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Creates or changes the objects of a YAML text.
    ///
    /// # Errors
    ///
    /// If it is no YAML, or of a kind that is not served.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        for object in serde_saphyr::from_multiple::<Value>(yaml)?.into_iter().filter(|object| !object.is_null()) {
            self.put(object)?;
        }
        Ok(())
    }

    /// Creates or changes an object.
    ///
    /// # Errors
    ///
    /// If it is of a kind that is not served.
    pub fn put(&self, object: Value) -> Result<()> {
        self.change(|store| store.apply(object))
    }

    /// Deletes an object of a collection such as `pods`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) -> Result<()> {
        self.change(|store| store.delete(collection, namespace, name))
    }

    /// Forgets what happened so far: whoever watches from an older version is told 410.
    pub fn compact(&self) {
        self.shared.state().store.compact();
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.shared.state().store.version()
    }

    /// Fails in this way from now on.
    pub fn fail(&self, fault: Fault) {
        self.fail_as_of(fault, self.version());
    }

    /// The same; where the fault is not to know of the newest, it knows what was before this version, and that.
    pub fn fail_as_of(&self, fault: Fault, version: u64) {
        self.shared.state().fault = Some((fault, version));
        self.shared.changed.send_replace(());
    }

    /// Works again.
    pub fn work(&self) {
        self.shared.state().fault = None;
        self.shared.changed.send_replace(());
    }

    /// The network in front of it.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Breaks every connection; new ones can be made at once.
    pub async fn break_connections(&self) {
        self.relay.set(Way::Broken);
        // The connections end when they have been polled with it.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        self.relay.set(Way::Open);
    }

    /// Serves by a certificate of a new authority, and takes client certificates of that one only. The files of the
    /// kubeconfig are left as they are, see [`FakeApi::write_credentials`].
    ///
    /// # Errors
    ///
    /// If no certificate can be made.
    pub fn rotate(&mut self) -> Result<()> {
        self.authority = Authority::new()?;
        self.tls.reload_from_config(self.authority.server()?);
        Ok(())
    }

    /// Writes the files that the kubeconfig names: the authority, and a new client certificate with its key.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn write_credentials(&self) -> Result<()> {
        let (certificate, key) = self.authority.client()?;
        for (name, text) in [("ca.crt", self.authority.certificate()), ("client.crt", certificate), ("client.key", key)]
        {
            // As the renewing of certificates does it, so that no half a file is read.
            let new = self.folder.path().join(format!("{name}.new"));
            fs::write(&new, text)?;
            fs::rename(new, self.folder.path().join(name))?;
        }
        Ok(())
    }

    /// How many requests there have been.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    fn write_kubeconfig(&self, address: SocketAddr) -> Result<()> {
        let server = format!("https://{address}");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "postern", "user": {"client-certificate": "client.crt", "client-key": "client.key"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "postern"}}],
        });
        fs::write(self.kubeconfig(), kubeconfig.to_string()).context("the kubeconfig")
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> Result<()>) -> Result<()> {
        change(&mut self.shared.state().store)?;
        self.shared.changed.send_replace(());
        Ok(())
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}
