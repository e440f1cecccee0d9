//! A certificate authority, and keys with its certificates.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::domain::PeerId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::{ClientConfig, ServerConfig};
use transport::{ClientSecurity, client_config, peer_id_of_spki, server_config};

/// A certificate authority.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A key with a certificate.
pub struct Identity {
    /// The peer id that belongs to the key.
    pub peer: PeerId,
    /// The certificate and that of its authority, as PEM.
    pub chain: String,
    /// The key, as PEM.
    pub key: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Creates an authority with a new key.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Creates the identity of a new peer, whose certificate is valid for an hour.
    pub fn peer(&self) -> Identity {
        self.peer_until(SystemTime::now() + Duration::from_secs(3_600))
    }

    /// As [`Self::peer`], with a certificate that is valid until `end`.
    pub fn peer_until(&self, end: SystemTime) -> Identity {
        let key = KeyPair::generate().unwrap();
        let name = peer_id_of_spki(&key.subject_public_key_info()).tls_name();
        self.issue(&name, &key, end)
    }

    /// Creates a new key and its certificate for `name`.
    pub fn named(&self, name: &str) -> Identity {
        self.issue(name, &KeyPair::generate().unwrap(), SystemTime::now() + Duration::from_secs(3_600))
    }

    fn issue(&self, name: &str, key: &KeyPair, end: SystemTime) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = end.into();
        let pem = params.signed_by(key, &self.issuer).unwrap().pem();
        Identity {
            peer: peer_id_of_spki(&key.subject_public_key_info()),
            chain: pem + &self.pem,
            key: key.serialize_pem(),
        }
    }

    /// A client without a certificate, which trusts this authority and expects a server of that name.
    pub fn trusting(&self, server_name: &str) -> ClientSecurity {
        let config = client_config(&self.pem, None).unwrap();
        ClientSecurity::Tls { config, server_name: server_name.to_owned() }
    }
}

impl Identity {
    /// The configuration of a server with this identity that trusts the authority in `trusted` (PEM).
    pub fn server(&self, trusted: &str) -> Arc<ServerConfig> {
        server_config(&self.chain, &self.key, Some(trusted)).unwrap()
    }

    /// The configuration of a client with this identity that trusts the authority in `trusted` (PEM).
    pub fn client(&self, trusted: &str) -> Arc<ClientConfig> {
        client_config(trusted, Some((&self.chain, &self.key))).unwrap()
    }
}

/// A certificate request for a new P-256 key, as DER.
pub fn csr() -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec!["somebody.else".into()]).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}
