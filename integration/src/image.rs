//! Packs the agent's image as an OCI archive, without Docker and always to the same bytes.
//!
//! The image is what the Dockerfile makes: nothing but the static binary, started with no shell in between. The layer
//! is a plain tar: entries in a fixed order, owned by root, dated at the epoch; JSON has its keys sorted. So two
//! builds of one revision have one digest, and who doubts an image can build it again and compare.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use crate::repository;

/// The name under which container runtimes know the image, without its tag.
pub const NAME: &str = "docker.io/library/postern";

/// What the image says of itself.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Version of the workspace; also the tag.
    pub version: String,
    /// The commit, if one is known.
    pub revision: Option<String>,
}

impl Labels {
    /// The version of this build, and the commit that `GIT_REVISION` names, if it is set.
    ///
    /// The working folder is not asked: what a clean checkout and an unpacked archive make must be the same.
    pub fn from_environment() -> Self {
        let revision = env::var("GIT_REVISION").ok().filter(|revision| !revision.is_empty());
        Labels { version: env!("CARGO_PKG_VERSION").to_owned(), revision }
    }
}

/// Builds the static binary, packs it and returns the path of the archive.
///
/// # Errors
///
/// If the build fails or the archive cannot be written.
pub fn build() -> Result<PathBuf> {
    let archive = repository::target().join("postern.oci.tar");
    // Cargo knows what is stale. The lock keeps tests in parallel from writing one archive at the same time.
    repository::locked("image.lock", || {
        let binary = fs::read(repository::run(".ci/static")?.trim_end())?;
        let incomplete = archive.with_extension("incomplete");
        pack(&binary, &Labels::from_environment(), &mut File::create(&incomplete)?)?;
        Ok(fs::rename(incomplete, &archive)?)
    })?;
    Ok(archive)
}

/// Writes an image that holds `binary` as `/postern` and runs it.
///
/// # Errors
///
/// If `archive` cannot be written.
pub fn pack(binary: &[u8], labels: &Labels, archive: &mut dyn Write) -> Result<()> {
    let layer = layer(binary)?;
    let config = serde_json::to_vec(&config(&layer, labels))?;
    let manifest = serde_json::to_vec(&manifest(&config, &layer))?;
    let index = serde_json::to_vec(&index(&manifest, labels))?;
    let layout = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?;

    let mut blobs = [&layer, &config, &manifest].map(|blob| (format!("blobs/sha256/{}", hex(blob)), blob));
    blobs.sort();
    let mut archive = Builder::new(archive);
    // Docker and containerd look at these two first.
    append(&mut archive, "oci-layout", 0o644, &layout)?;
    append(&mut archive, "index.json", 0o644, &index)?;
    for (path, blob) in blobs {
        append(&mut archive, &path, 0o644, blob)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// The file system: the binary alone. A runtime makes the folders that it mounts on.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    append(&mut layer, "postern", 0o755, binary)?;
    layer.into_inner().context("the layer is in memory")
}

fn append<W: Write>(archive: &mut Builder<W>, path: &str, mode: u32, data: &[u8]) -> Result<()> {
    Ok(archive.append_data(&mut header(data.len() as u64, mode), path, data)?)
}

/// A header of root's, dated at the epoch.
fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn config(layer: &[u8], labels: &Labels) -> Value {
    let mut texts = json!({
        "org.opencontainers.image.title": "postern",
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.version": labels.version,
    });
    if let Some(revision) = &labels.revision {
        texts["org.opencontainers.image.revision"] = json!(revision);
    }
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/postern"], "Labels": texts},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "postern image"}],
    })
}

fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

fn index(manifest: &[u8], labels: &Labels) -> Value {
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
    // The first is the standard's word and holds the tag; containerd, and so kind and k3s, take the full name from
    // the second.
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": labels.version,
        "io.containerd.image.name": format!("{NAME}:{}", labels.version),
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    })
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// The architecture's name in the OCI's words, which are those of Go.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect()
}
