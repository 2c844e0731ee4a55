//! The way to the API server, and the files that say who is asking and whom to trust.
//!
//! A kubeconfig and what it names, or the files of a service account, are replaced while the agent runs: a certificate
//! authority is rotated, a client certificate renewed. Before each request they are read (some kilobytes, and requests
//! are minutes apart), and when they have changed the request, and those after it, use a new client. A watch that runs
//! goes on over the connection that it has. Files that cannot be used leave the last client in place: the server may
//! still take it, and a rotation that is half written is whole a moment later.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connect::connect;

/// How many watches share a connection: an API server takes 100 at once over HTTP/2, and lets further ones wait.
const SHARE: usize = 64;
/// How often a client is made anew though no file has changed, when the server refuses what it says.
const RENEWAL: Duration = Duration::from_secs(30);
/// Where a pod has the files of its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The way to the API server. Clones are the same one.
#[derive(Clone)]
pub struct Access(Arc<Mutex<State>>);

/// A place on a connection. Dropping it leaves it to others.
pub(crate) struct Seat {
    access: Access,
    bench: Arc<()>,
}

struct State {
    origin: Origin,
    config: Config,
    /// What the files held when the client was made.
    print: u64,
    made: Instant,
    /// Why the files are not used as they are now.
    problem: Option<String>,
    benches: Vec<Bench>,
}

enum Origin {
    /// The default kubeconfig, or the service account.
    Default,
    Kubeconfig(PathBuf),
    #[cfg(test)]
    Fixed,
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
    /// If there is neither, or it cannot be used.
    pub async fn by_default() -> Result<Access> {
        Access::new(Origin::Default).await.context("no way to the API server")
    }

    /// By the current context of a kubeconfig.
    ///
    /// # Errors
    ///
    /// If it, or a file that it names, cannot be used.
    pub async fn by_kubeconfig(path: &Path) -> Result<Access> {
        let name = || format!("kubeconfig {}", path.display());
        Access::new(Origin::Kubeconfig(path.to_owned())).await.with_context(name)
    }

    async fn new(origin: Origin) -> Result<Access> {
        let print = origin.print();
        let config = origin.load().await?;
        // Whatever is wrong with it is to be known at the start.
        connect(&config).map_err(anyhow::Error::from_boxed)?;
        let state = State { origin, config, print, made: Instant::now(), problem: None, benches: Vec::new() };
        Ok(Access(Arc::new(Mutex::new(state))))
    }

    /// Always by this client.
    #[cfg(test)]
    pub(super) fn fixed(client: Client) -> Access {
        let config = Config::new(http::Uri::from_static("http://localhost"));
        let benches = vec![Bench { token: Arc::new(()), client: Some(client) }];
        let state = State {
            origin: Origin::Fixed,
            config,
            print: Origin::Fixed.print(),
            made: Instant::now(),
            problem: None,
            benches,
        };
        Access(Arc::new(Mutex::new(state)))
    }

    /// A place for a watch, or for another request.
    pub(crate) async fn seat(&self) -> Seat {
        let mut state = self.0.lock().await;
        let free = state.benches.iter().find(|bench| Arc::strong_count(&bench.token) <= SHARE);
        let bench = free.map_or_else(Arc::default, |bench| bench.token.clone());
        if free.is_none() {
            state.benches.push(Bench { token: bench.clone(), client: None });
        }
        Seat { access: self.clone(), bench }
    }
}

// === impl Seat ===

impl Seat {
    /// The client for a request, by the files as they are now. It is made anew if `refused`, too: what a credential
    /// plugin gave may have expired.
    pub(crate) async fn client(&self, refused: bool) -> Result<Client> {
        let mut state = self.access.0.lock().await;
        let print = state.origin.print();
        let expired = refused && state.origin.may_expire() && state.made.elapsed() >= RENEWAL;
        if print != state.print || expired {
            state.renew(print).await;
        }
        let State { config, benches, .. } = &mut *state;
        let own = benches.iter_mut().find(|bench| Arc::ptr_eq(&bench.token, &self.bench));
        let own = own.expect("a bench stays as long as somebody sits on it");
        match &own.client {
            Some(client) => Ok(client.clone()),
            None => {
                let client = connect(config).map_err(anyhow::Error::from_boxed)?;
                Ok(own.client.insert(client).clone())
            }
        }
    }
}

// === impl State ===

impl State {
    /// Takes the files as they are now, if they can be used.
    async fn renew(&mut self, print: u64) {
        let loaded = match self.origin.load().await {
            Ok(config) => connect(&config).map(|_| config).map_err(anyhow::Error::from_boxed),
            Err(error) => Err(error),
        };
        self.made = Instant::now();
        match loaded {
            Ok(config) => {
                if print != self.print {
                    info!("the credentials for the API server have changed, and are used from now on");
                }
                (self.config, self.print, self.problem) = (config, print, None);
                // Watches that run keep the connections that they have until they end.
                self.benches.iter_mut().for_each(|bench| bench.client = None);
            }
            Err(error) => {
                let text = format!("{error:#}");
                if self.problem.as_ref() != Some(&text) {
                    warn!(error = text, "the credentials for the API server cannot be used, the last ones are");
                    self.problem = Some(text);
                }
            }
        }
    }
}

// === impl Origin ===

impl Origin {
    async fn load(&self) -> Result<Config> {
        let mut config = match self {
            Origin::Default => Config::infer().await?,
            Origin::Kubeconfig(path) => {
                let kubeconfig = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
            }
            #[cfg(test)]
            Origin::Fixed => Config::new(http::Uri::from_static("http://localhost")),
        };
        // kube would read this file once a minute; here all files are read when a request needs them.
        config.root_cert_file = None;
        // What fails is tried again by the back-off of the watch, and by nothing below it.
        config.default_retry = false;
        Ok(config)
    }

    /// What tells the contents of all files from what they were.
    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.files() {
            fs::read(&path).ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether the same files may lead to other credentials later.
    fn may_expire(&self) -> bool {
        match self {
            Origin::Default | Origin::Kubeconfig(_) => true,
            #[cfg(test)]
            Origin::Fixed => false,
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let (kubeconfig, mut files) = match self {
            Origin::Default => {
                let mut files = default_kubeconfigs();
                files.extend(["ca.crt", "token"].map(|name| Path::new(SERVICE_ACCOUNT).join(name)));
                (Kubeconfig::read().ok(), files)
            }
            Origin::Kubeconfig(path) => (Kubeconfig::read_from(path).ok(), vec![path.clone()]),
            #[cfg(test)]
            Origin::Fixed => (None, Vec::new()),
        };
        let Kubeconfig { clusters, auth_infos, .. } = kubeconfig.unwrap_or_default();
        let authorities = clusters.into_iter().filter_map(|named| named.cluster?.certificate_authority);
        files.extend(authorities.map(PathBuf::from));
        for user in auth_infos.into_iter().filter_map(|named| named.auth_info) {
            let named = [user.client_certificate, user.client_key, user.token_file].into_iter().flatten();
            files.extend(named.map(PathBuf::from));
        }
        files
    }
}

/// Where kube looks for kubeconfigs that nobody names.
fn default_kubeconfigs() -> Vec<PathBuf> {
    match env::var_os("KUBECONFIG") {
        Some(paths) => env::split_paths(&paths).collect(),
        None => env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use http::Request;
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;

    /// A folder with a kubeconfig for a server at this address, and the token that it names.
    fn folder(address: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "one").unwrap();
        fs::write(folder.path().join("config"), kubeconfig(address)).unwrap();
        folder
    }

    fn kubeconfig(address: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}], users: [{{name: u, user: {{tokenFile: token}}}}]}}"
        )
    }

    /// What the server sees of the credentials of the next request.
    async fn credentials(seat: &Seat) -> String {
        let client = seat.client(false).await.unwrap();
        client.request_text(Request::get("/").body(Vec::new()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn credentials_that_change_are_used_from_the_next_request_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shown = |headers: HeaderMap| async move { format!("{:?}", headers.get("authorization")) };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(shown)).await });
        let folder = folder(&address);
        let (config, token) = (folder.path().join("config"), folder.path().join("token"));
        let seat = Access::by_kubeconfig(&config).await.unwrap().seat().await;
        assert!(credentials(&seat).await.contains("Bearer one"));
        fs::write(&token, "two").unwrap();
        assert!(credentials(&seat).await.contains("Bearer two"));
        fs::write(&config, "{half").unwrap();
        assert!(credentials(&seat).await.contains("Bearer two"), "what cannot be used changes nothing");
        fs::write(&token, "three").unwrap();
        fs::write(&config, kubeconfig(&address)).unwrap();
        assert!(credentials(&seat).await.contains("Bearer three"), "and is used when it is whole");
    }

    #[test]
    fn every_file_that_a_kubeconfig_names_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let config = "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://s', \
            certificate-authority: ca}}], users: [{name: u, user: {client-certificate: cert, client-key: key, \
            tokenFile: token}}]}";
        fs::write(path("config"), config).unwrap();
        let origin = Origin::Kubeconfig(path("config"));
        let mut last = origin.print();
        assert_eq!(origin.print(), last);
        for name in ["ca", "cert", "key", "token", "ca"] {
            fs::write(path(name), format!("{last}")).unwrap();
            let now = origin.print();
            assert_ne!(now, last, "{name}");
            last = now;
        }
    }
}
