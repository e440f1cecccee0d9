//! The operator's commands: they work on the data directory, beside a tracker that serves from it.

use std::{
    io::{self, BufRead as _, Write},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use proto::{
    domain::Username,
    settings::Settings,
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    domain::Origin,
    password::{Hasher, Password},
    store::{
        Accounts as _, AuditRow, Log as _,
        sqlite::{self, Sqlite},
    },
};

/// Rows of the audit log that are read at a time.
const AUDIT_PAGE: u32 = 1_000;
/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(5);

pub(super) async fn health(config: &Config, tracker: &str, ca: Option<&Path>) -> anyhow::Result<()> {
    let uri: http::Uri = tracker.parse().with_context(|| format!("{tracker:?} is not a URL"))?;
    let host = uri.host().with_context(|| format!("{tracker:?} names no host"))?.trim_matches(['[', ']']);
    let security = match uri.scheme_str() {
        Some("http") => ClientSecurity::Plaintext,
        Some("https") => {
            let path = ca.map_or_else(|| config.data_dir.join("ca.pem"), Path::to_owned);
            let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            ClientSecurity::Tls { config: client_config(&pem, None)?, server_name: host.to_owned() }
        }
        _ => bail!("{tracker:?}: write a tracker as https://HOST:PORT"),
    };
    let remote = Remote::Tcp { host: host.to_owned(), port: uri.port_u16().unwrap_or(7700) };
    let check = async {
        let channel = connect(remote, security, &ChannelTuning::control()).await?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
        anyhow::Ok(answer.into_inner().status())
    };
    match tokio::time::timeout(HEALTH, check).await {
        Ok(Ok(ServingStatus::Serving)) => Ok(()),
        Ok(Ok(status)) => bail!("{tracker} answers {}", status.as_str_name()),
        Ok(Err(error)) => Err(error.context(tracker.to_owned())),
        Err(_) => bail!("{tracker} does not answer within {} s", HEALTH.as_secs()),
    }
}

pub(super) async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    sqlite::backup(&config.data_dir, file).await?;
    writeln!(
        io::stdout(),
        "{} holds a copy of {}; keep it as secret",
        file.display(),
        config.data_dir.display()
    )?;
    Ok(())
}

pub(super) async fn restore(config: &Config, file: &Path) -> anyhow::Result<()> {
    let before = sqlite::restore(&config.data_dir, file).await?;
    writeln!(
        io::stdout(),
        "{} is as it was in {}; everybody logs in anew",
        config.data_dir.display(),
        file.display()
    )?;
    if let Some(before) = before {
        writeln!(io::stdout(), "what was there before is {}", before.display())?;
    }
    Ok(())
}

pub(super) async fn set_disabled(config: &Config, name: &str, disabled: bool) -> anyhow::Result<()> {
    let user = username(name)?;
    let store = Sqlite::open_beside(&config.data_dir).await?;
    let done = store.set_disabled(&user, disabled, &origin()).await;
    store.close().await;
    done.with_context(|| name.to_owned())?;
    let what =
        if disabled { "disabled; its sessions and transfers end within 15 seconds" } else { "enabled" };
    writeln!(io::stdout(), "{user} is {what}")?;
    Ok(())
}

pub(super) async fn reset_password(config: &Config, name: &str) -> anyhow::Result<()> {
    let user = username(name)?;
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let password = Password::chosen(line.trim_end_matches(['\r', '\n']).to_owned())?;
    let hash = Hasher::new()?.hash(password).await?;
    let store = Sqlite::open_beside(&config.data_dir).await?;
    let done = store.reset_password(&user, &hash, &origin()).await;
    store.close().await;
    done.with_context(|| name.to_owned())?;
    writeln!(io::stdout(), "{user} has a new password; all of its sessions are over")?;
    Ok(())
}

pub(super) async fn audit(config: &Config, since: Option<&str>, json: bool) -> anyhow::Result<()> {
    let since = since.map_or(Ok(SystemTime::UNIX_EPOCH), |text| moment(text, SystemTime::now()))?;
    let store = Sqlite::open_beside(&config.data_dir).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut after = 0;
    loop {
        let rows = store.audit(since, after, AUDIT_PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for row in &rows {
            print_row(&mut out, row, json)?;
        }
    }
    out.flush()?;
    Ok(())
}

pub(super) fn show(settings: &Settings) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for shown in settings.shown() {
        writeln!(out, "{} = {:?}  # {}", shown.name, shown.value, shown.origin)?;
    }
    Ok(())
}

fn print_row(out: &mut impl Write, row: &AuditRow, json: bool) -> io::Result<()> {
    let at = jiff::Timestamp::try_from(row.at).map_or_else(|_| "-".to_owned(), |at| at.to_string());
    if json {
        let line = serde_json::json!({
            "id": row.id, "at": at, "actor": row.actor, "ip": row.ip, "action": row.action, "object": row.object,
            "request": row.request,
        });
        return writeln!(out, "{line}");
    }
    let actor = row.actor.as_deref().unwrap_or("-");
    let ip = row.ip.as_deref().unwrap_or("-");
    // Objects hold what people typed: escaped, so that a line stays a line.
    writeln!(out, "{at}  {actor:<16} {ip:<15} {:<18} {}", row.action, row.object.escape_debug())
}

/// A time, or an age before `now`.
fn moment(text: &str, now: SystemTime) -> anyhow::Result<SystemTime> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.into());
    }
    let age = text.parse::<jiff::SignedDuration>().ok().and_then(|age| Duration::try_from(age).ok());
    age.or_else(|| days(text)).and_then(|age| now.checked_sub(age)).with_context(|| {
        format!("{text:?} is neither a time like 2026-01-31T08:00:00Z nor an age like 2h or 7d")
    })
}

fn days(text: &str) -> Option<Duration> {
    let days: u32 = text.strip_suffix('d')?.parse().ok()?;
    Some(Duration::from_secs(u64::from(days) * 86_400))
}

fn username(name: &str) -> anyhow::Result<Username> {
    name.parse().with_context(|| format!("{name:?}"))
}

fn origin() -> Origin {
    Origin { actor: None, ip: None, request: Arc::from("operator"), at: SystemTime::now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, seconds) in
            [("2h", 992_800), ("90s", 999_910), ("7d", 395_200), ("1970-01-01T00:00:05Z", 5)]
        {
            let at = moment(text, now).expect(text);
            assert_eq!(at, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "soon", "-2h", "99999999999d"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_row_is_one_line_whatever_was_typed() {
        let row = AuditRow {
            id: 1,
            at: SystemTime::UNIX_EPOCH,
            actor: Some("ann".into()),
            ip: None,
            action: "create_group".into(),
            object: "a\nb\u{1b}[31m".into(),
            request: "r".into(),
        };
        for json in [false, true] {
            let mut out = Vec::new();
            print_row(&mut out, &row, json).expect("written");
            let text = String::from_utf8(out).expect("text");
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
}
