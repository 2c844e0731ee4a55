//! The image is a right OCI image, always the same, and runs where there is nothing but itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use integration::image::{Labels, NAME, pack};
use integration::repository;
use oci_spec::image::{Arch, ImageConfiguration, ImageIndex, ImageManifest, MediaType, OciLayout, Os};
use sha2::{Digest, Sha256};
use tar::Archive;

fn labels() -> Labels {
    Labels { version: "1.2.3".to_owned(), revision: Some("0123abc".to_owned()) }
}

fn packed(binary: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(binary, &labels(), &mut archive).expect("memory can be written");
    archive
}

/// The files of a tar by their paths.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().expect("it is a tar");
    entries
        .map(|entry| {
            let mut entry = entry.expect("it is a whole tar");
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("an entry is whole");
            (entry.path().expect("a path is UTF-8").display().to_string(), data)
        })
        .collect()
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, digest: &str) -> &'a [u8] {
    let hex = digest.strip_prefix("sha256:").expect("digests are SHA-256");
    let blob = &files[&format!("blobs/sha256/{hex}")];
    let actual: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(actual, hex);
    blob
}

#[test]
fn the_same_binary_makes_the_same_archive() {
    let first = packed(b"binary");
    // A clock in the archive would have to tick in between.
    sleep(Duration::from_millis(1100));
    assert!(first == packed(b"binary"));
    assert!(first != packed(b"other binary"));
}

#[test]
fn the_archive_is_an_image_of_one_binary() {
    let files = files(&packed(b"binary"));
    let layout: OciLayout = serde_json::from_slice(&files["oci-layout"]).unwrap();
    assert_eq!(layout.image_layout_version(), "1.0.0");

    let index: ImageIndex = serde_json::from_slice(&files["index.json"]).unwrap();
    let [descriptor] = index.manifests().as_slice() else { panic!("one image: {index:?}") };
    assert_eq!(descriptor.media_type(), &MediaType::ImageManifest);
    let annotations = descriptor.annotations().as_ref().unwrap();
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.2.3");
    assert_eq!(annotations["io.containerd.image.name"], format!("{NAME}:1.2.3"));

    let bytes = blob(&files, descriptor.digest().as_ref());
    assert_eq!(descriptor.size(), bytes.len() as u64);
    let manifest: ImageManifest = serde_json::from_slice(bytes).unwrap();
    let bytes = blob(&files, manifest.config().digest().as_ref());
    assert_eq!(manifest.config().size(), bytes.len() as u64);
    let config: ImageConfiguration = serde_json::from_slice(bytes).unwrap();
    assert_eq!((config.os(), config.architecture()), (&Os::Linux, &Arch::default()));
    let process = config.config().as_ref().unwrap();
    assert_eq!(process.entrypoint().as_deref(), Some(&["/postern".to_owned()][..]));
    let texts = process.labels().as_ref().unwrap();
    assert_eq!(texts["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(texts["org.opencontainers.image.revision"], "0123abc");
    assert_eq!(texts["org.opencontainers.image.licenses"], "Apache-2.0");

    let [layer] = manifest.layers().as_slice() else { panic!("one layer: {manifest:?}") };
    assert_eq!(layer.media_type(), &MediaType::ImageLayer);
    let bytes = blob(&files, layer.digest().as_ref());
    assert_eq!(layer.size(), bytes.len() as u64);
    assert_eq!(config.rootfs().diff_ids(), &[layer.digest().to_string()]);
    let mut archive = Archive::new(bytes);
    let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
    let [binary] = entries.as_slice() else { panic!("one file: {}", entries.len()) };
    let header = binary.header();
    assert_eq!(binary.path().unwrap().to_str(), Some("postern"));
    assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0o755, 0, 0));
}

#[test]
fn the_dockerfile_makes_the_same_image() {
    let read = |path: &str| fs::read_to_string(repository::root().join(path)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let release = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"')).unwrap();
    let dockerfile = read("Dockerfile");
    for line in [
        format!("FROM rust:{release}-slim-bookworm AS build"),
        format!("ENV RUSTUP_TOOLCHAIN={release}"),
        "RUN cp \"$(.ci/static)\" /static-postern".to_owned(),
        "FROM scratch".to_owned(),
        "ENTRYPOINT [\"/postern\"]".to_owned(),
    ] {
        assert!(dockerfile.lines().any(|found| found == line), "the Dockerfile lacks: {line}");
    }
}
