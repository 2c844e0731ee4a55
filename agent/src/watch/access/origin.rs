//! The files that say where the API server is, who is asking and whom to trust.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::Result;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Where a pod has the files of its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the way to the API server is found.
#[derive(Debug)]
pub(super) enum Origin {
    /// The default kubeconfigs, or else the service account of the pod: where they are.
    Default { kubeconfigs: Vec<PathBuf>, service_account: PathBuf },
    /// A kubeconfig.
    Kubeconfig(PathBuf),
    /// A context that is not the current one, of a kubeconfig or of the default ones.
    Context { kubeconfig: Option<PathBuf>, context: String },
    #[cfg(test)]
    Fixed,
}

impl Origin {
    pub(super) fn by_default() -> Origin {
        let kubeconfigs = default_kubeconfigs(env::var_os("KUBECONFIG"), env::home_dir());
        Origin::Default { kubeconfigs, service_account: SERVICE_ACCOUNT.into() }
    }

    pub(super) async fn load(&self) -> Result<Config> {
        let mut config = match self {
            Origin::Default { .. } => Config::infer().await?,
            Origin::Kubeconfig(path) => {
                let kubeconfig = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
            }
            Origin::Context { kubeconfig, context } => {
                let kubeconfig = match kubeconfig {
                    Some(path) => Kubeconfig::read_from(path)?,
                    None => Kubeconfig::read()?,
                };
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options).await?
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
    pub(super) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.files() {
            fs::read(&path).ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether the same files may lead to other credentials later.
    pub(super) fn may_expire(&self) -> bool {
        match self {
            Origin::Default { .. } | Origin::Kubeconfig(_) | Origin::Context { .. } => true,
            #[cfg(test)]
            Origin::Fixed => false,
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Origin::Default { kubeconfigs, service_account } => {
                let mut files: Vec<PathBuf> = kubeconfigs.iter().flat_map(|path| with_named(path)).collect();
                files.extend(["ca.crt", "token"].map(|name| service_account.join(name)));
                files
            }
            Origin::Kubeconfig(path) | Origin::Context { kubeconfig: Some(path), .. } => with_named(path),
            Origin::Context { kubeconfig: None, .. } => {
                let kubeconfigs = default_kubeconfigs(env::var_os("KUBECONFIG"), env::home_dir());
                kubeconfigs.iter().flat_map(|path| with_named(path)).collect()
            }
            #[cfg(test)]
            Origin::Fixed => Vec::new(),
        }
    }
}

/// A kubeconfig and the files that it names.
fn with_named(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    let Kubeconfig { clusters, auth_infos, .. } = Kubeconfig::read_from(path).unwrap_or_default();
    let authorities = clusters.into_iter().filter_map(|named| named.cluster?.certificate_authority);
    files.extend(authorities.map(PathBuf::from));
    for user in auth_infos.into_iter().filter_map(|named| named.auth_info) {
        let named = [user.client_certificate, user.client_key, user.token_file].into_iter().flatten();
        files.extend(named.map(PathBuf::from));
    }
    files
}

/// Where kube looks for kubeconfigs that nobody names, by the variable `KUBECONFIG` and the user's home.
fn default_kubeconfigs(variable: Option<OsString>, home: Option<PathBuf>) -> Vec<PathBuf> {
    match variable {
        Some(paths) => env::split_paths(&paths).collect(),
        None => home.map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes each of the files in turn, which must change the print each time.
    #[track_caller]
    fn all_count(origin: &Origin, folder: &Path, names: &[&str]) {
        let mut last = origin.print();
        assert_eq!(origin.print(), last);
        for name in names {
            fs::write(folder.join(name), format!("{last}")).unwrap();
            let now = origin.print();
            assert_ne!(now, last, "{name}");
            last = now;
        }
    }

    #[test]
    fn every_file_that_a_kubeconfig_names_counts() {
        let folder = tempfile::tempdir().unwrap();
        let config = "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://s', \
            certificate-authority: ca}}], users: [{name: u, user: {client-certificate: cert, client-key: key, \
            tokenFile: token}}]}";
        let path = folder.path().join("config");
        fs::write(&path, config).unwrap();
        all_count(&Origin::Kubeconfig(path), folder.path(), &["ca", "cert", "key", "token", "ca", "config"]);
    }

    #[test]
    fn by_default_every_place_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("account")).unwrap();
        let config = "{apiVersion: v1, kind: Config, users: [{name: u, user: {tokenFile: token}}]}";
        fs::write(path("second"), config).unwrap();
        let kubeconfigs = default_kubeconfigs(Some(env::join_paths([path("first"), path("second")]).unwrap()), None);
        let origin = Origin::Default { kubeconfigs, service_account: path("account") };
        let names = ["first", "token", "second", "account/ca.crt", "account/token", "account/token"];
        all_count(&origin, folder.path(), &names);
    }

    #[test]
    fn kubeconfigs_that_nobody_names_are_where_kubectl_has_them() {
        let home = || Some(PathBuf::from("/home/u"));
        assert_eq!(default_kubeconfigs(Some("/a:/b".into()), home()), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(default_kubeconfigs(None, home()), [Path::new("/home/u/.kube/config")]);
        assert!(default_kubeconfigs(None, None).is_empty());
    }
}
