//! What the services logged.

use anyhow::{Result, bail};

use super::PEERS;
use crate::{
    poke,
    stage::{Host, Stage},
    story::USERS,
};

/// Nothing panicked, and no secret was written.
pub(super) fn check(stage: &dyn Stage) -> Result<()> {
    let mut logs = String::new();
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        logs.push_str(&stage.log(host)?);
    }
    let secrets =
        USERS.iter().map(|user| user.password).chain(["mts_", poke::PASSWORD, "PRIVATE KEY", "v4.public."]);
    for word in secrets.chain(["panicked at"]) {
        if let Some(line) = logs.lines().find(|line| line.contains(word)) {
            bail!("{word:?} should not be in the logs: {line}");
        }
    }
    println!("  {} lines, no panic, no secret", logs.lines().count());
    Ok(())
}
