//! Certificate requests: a certificate names the key of its request and nothing else.
#![no_main]

use std::{sync::LazyLock, time::SystemTime};

use fuzz::NOW;
use libfuzzer_sys::fuzz_target;
use tracker_svc::ca::{Authority, OwnCertificate};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(NOW);
    Authority::open_or_create(dir.path(), OwnCertificate::Issued(vec![]), now).expect("an authority")
});

fuzz_target!(|csr: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(NOW);
    let Ok(issued) = AUTHORITY.issue_peer(csr, now) else { return };
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&pem.contents).expect("a certificate");
    let names = certificate.subject_alternative_name().expect("one extension").expect("names").value;
    let name = issued.peer.tls_name();
    assert!(matches!(names.general_names[..], [GeneralName::DNSName(found)] if found == name), "{names:?}");
    assert!(!certificate.is_ca());
    assert_eq!(transport::peer_id_of_spki(certificate.public_key().raw), issued.peer);
});
