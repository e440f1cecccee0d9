//! Checks on the logs of the services.

use anyhow::{Result, bail};
use testbed::{Host, Hosts};

use super::steps::PEERS;
use crate::grpcurl;
use testbed::scenario::USERS;

/// Checks that no service panicked and that no log contains a secret.
pub(super) fn check(hosts: &dyn Hosts) -> Result<()> {
    let mut logs = String::new();
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        logs.push_str(&hosts.log(host)?);
    }
    let secrets = USERS.iter().map(|user| user.password).chain([
        "mts_",
        grpcurl::PASSWORD,
        "PRIVATE KEY",
        "v4.public.",
    ]);
    for word in secrets.chain(["panicked at"]) {
        if let Some(line) = logs.lines().find(|line| line.contains(word)) {
            bail!("{word:?} should not be in the logs: {line}");
        }
    }
    println!("  {} lines, no panic, no secret", logs.lines().count());
    Ok(())
}
