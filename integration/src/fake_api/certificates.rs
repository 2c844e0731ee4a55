//! A certificate authority, and what it signs: the server's certificate and those of clients.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, crypto::ring};

/// An authority that signs certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

// === impl Authority ===

impl Authority {
    pub(super) fn new() -> Result<Authority> {
        let mut params = named("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's own certificate, as PEM.
    pub(super) fn certificate(&self) -> String {
        self.0.as_ref().pem()
    }

    /// Serves loopback by a new certificate, and asks clients for one of this authority.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>> {
        let mut params = named("server");
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let mut trusted = RootCertStore::empty();
        trusted.add(self.0.as_ref().der().clone())?;
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = config.with_client_cert_verifier(clients).with_single_cert(vec![certificate.der().clone()], key);
        let mut config = config?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A client's new certificate and its key, as PEM.
    pub(super) fn client(&self) -> Result<(String, String)> {
        let mut params = named("postern");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.0)?.pem(), key.serialize_pem()))
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
