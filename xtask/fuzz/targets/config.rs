//! Configuration files of both programs, and addresses, rates and URLs in them.
#![no_main]

use std::{net::IpAddr, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use program::settings::{Layers, Settings, Typed};
use tracker_core::address::{Announced, dialable};
use tracker_svc::config::{Config, SETTINGS};

static DIR: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory"));

fuzz_target!(|input: (IpAddrBytes, u32, &str)| {
    let (observed, port, text) = input;
    let file = DIR.path().join("config.toml");
    std::fs::write(&file, text).expect("written");
    let layers = Layers {
        flags: Typed::new(),
        env: &|_| None,
        file: file.clone(),
        file_asked: true,
        directory: DIR.path().to_owned(),
    };
    if let Ok(settings) = Settings::resolve(SETTINGS, &layers)
        && let Ok(config) = Config::new(DIR.path().to_owned(), &settings)
    {
        assert!(!config.plaintext || config.allow_insecure || config.listen.ip().is_loopback());
        assert!((60..=86_400).contains(&config.ticket_ttl.as_secs()));
    }
    peer::fuzzing::config(&file);
    if let Some(url) = peer::fuzzing::tracker_url(text) {
        assert_eq!(peer::fuzzing::tracker_url(&url).as_deref(), Some(url.as_str()), "one spelling of each");
    }
    let observed: IpAddr = observed.into();
    let mut lines = text.split('\n').map(str::to_owned);
    let (advertise, listen) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let more: Vec<String> = lines.collect();
    let announced = Announced { port, listen: &listen, advertise: &advertise, more: &more };
    let Ok(addresses) = dialable(observed, &announced) else { return };
    for (reader, is_here) in [(IpAddr::from([192, 0, 2, 1]), false), (IpAddr::from([127, 0, 0, 1]), true)] {
        for address in addresses.given_to(reader).split(',').filter(|address| !address.is_empty()) {
            let (host, port) = address.rsplit_once(':').expect("a port");
            assert_ne!(port.parse::<u16>().expect("a port"), 0, "{address}");
            assert!(address.len() <= 262 && !address.contains(['/', '@', ' ', '\0']), "{address}");
            if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
                let ip = ip.to_canonical();
                assert!(!ip.is_unspecified() && !ip.is_multicast(), "{address}");
                let is_allowed = is_here && observed.to_canonical().is_loopback();
                assert!(!ip.is_loopback() || is_allowed, "{address}");
            }
        }
    }
});

/// The address that a tracker sees.
#[derive(arbitrary::Arbitrary, Debug)]
enum IpAddrBytes {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl From<IpAddrBytes> for IpAddr {
    fn from(bytes: IpAddrBytes) -> Self {
        match bytes {
            IpAddrBytes::V4(bytes) => bytes.into(),
            IpAddrBytes::V6(bytes) => bytes.into(),
        }
    }
}
