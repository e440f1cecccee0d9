//! The operator's commands. They work on the data directory, also while a tracker serves from it.

use std::{
    io::{self, BufRead as _, Write},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use program::settings::Settings;
use proto::domain::{
    Username, expiry,
    visible::{escape, escape_json},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use transport::{
    ChannelTuning, ClientSecurity, ConnectError, ConnectFault, Remote, client_config, connect, presented_end,
    validity,
};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    database,
    domain::Origin,
    password::{Hasher, Password},
    store::{
        AuditRow,
        sqlite::{self, Sqlite},
        takeover::{Taken, take_over},
    },
    vault,
};

/// Rows of the audit log that are read at once.
const AUDIT_PAGE: u32 = 1_000;
/// Timeout of a health check.
const HEALTH: Duration = Duration::from_secs(5);

pub(super) async fn health(config: &Config, tracker: &str, ca: Option<&Path>) -> anyhow::Result<()> {
    let uri: http::Uri = tracker.parse().with_context(|| format!("{tracker:?} is not a URL"))?;
    let host = uri.host().with_context(|| format!("{tracker:?} contains no host"))?.trim_matches(['[', ']']);
    let security = match uri.scheme_str() {
        Some("http") => ClientSecurity::Plaintext,
        Some("https") => {
            let path = ca.map_or_else(|| config.data_dir.join("ca.pem"), Path::to_owned);
            let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            ClientSecurity::Tls { config: client_config(&pem, None)?, server_name: host.to_owned() }
        }
        _ => bail!("{tracker:?} is not a tracker's URL; write it as https://HOST:PORT"),
    };
    let trusted = ca.map_or_else(|| config.data_dir.join("ca.pem"), Path::to_owned);
    let remote = Remote::Tcp { host: host.to_owned(), port: uri.port_u16().unwrap_or(7700) };
    let check = async {
        let channel = connect(remote, security, &ChannelTuning::control()).await?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
        anyhow::Ok(answer.into_inner().status())
    };
    match tokio::time::timeout(HEALTH, check).await {
        Ok(Ok(ServingStatus::Serving)) => {
            if uri.scheme_str() == Some("https") {
                warn_of_end(tracker, host, uri.port_u16().unwrap_or(7700), &trusted).await;
            }
            Ok(())
        }
        Ok(Ok(status)) => bail!("{tracker} answered {}", status.as_str_name()),
        Ok(Err(error)) => Err(explained(tracker, uri.scheme_str() == Some("http"), error)),
        Err(_) => bail!("{tracker} did not answer within {} s", HEALTH.as_secs()),
    }
}

/// The error of a health check, in words and with what to do.
fn explained(tracker: &str, is_plain: bool, error: anyhow::Error) -> anyhow::Error {
    let Some(failed) = ConnectError::of(&*error) else {
        // It answers, but not as it should.
        let advice = if is_plain { "; if it serves TLS, use https://" } else { "" };
        return error.context(format!("{tracker} does not answer as a tracker{advice}"));
    };
    let advice = match failed.fault() {
        ConnectFault::AnotherName => "; add the name with `tracker-svc serve --tls-name`",
        ConnectFault::UnknownAuthority => "; --ca must name the CA that signed the tracker's certificate",
        ConnectFault::NotTls => "; a tracker with --plaintext is reached by http://",
        _ => "",
    };
    anyhow::anyhow!("{tracker}: {}{advice}", failed.words())
}

/// Warns if a certificate ends soon.
async fn warn_of_end(tracker: &str, host: &str, port: u16, ca: &Path) {
    let Ok(pem) = std::fs::read_to_string(ca) else { return };
    let presented = presented_end(host, port, &pem, HEALTH).await.ok();
    let authority = validity(&pem).ok().map(|validity| validity.not_after);
    let certificates =
        [(format!("the certificate of {tracker}"), presented), (ca.display().to_string(), authority)];
    for (what, ends) in certificates {
        let left = ends.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        if let Some(days) = left.and_then(|left| expiry::warning(left, None)) {
            let _ = writeln!(io::stderr(), "warning: {what} ends within {days} days");
        }
    }
}

/// Backups are copies of a data directory. A shared database has its own tools.
fn one_file(config: &Config) -> anyhow::Result<()> {
    match &config.database {
        None => Ok(()),
        Some(database) => bail!(
            "the tracker's data is in the database {database}; copy it with pg_dump, and keep the cluster key with the copy"
        ),
    }
}

pub(super) async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    one_file(config)?;
    sqlite::backup(&config.data_dir, file).await?;
    writeln!(
        io::stdout(),
        "{} contains a copy of {}; keep it secret, because it contains the tracker's keys",
        file.display(),
        config.data_dir.display()
    )?;
    Ok(())
}

pub(super) async fn restore(config: &Config, file: &Path) -> anyhow::Result<()> {
    one_file(config)?;
    let before = sqlite::restore(&config.data_dir, file).await?;
    writeln!(
        io::stdout(),
        "{} was restored from {}; all users must log in again",
        config.data_dir.display(),
        file.display()
    )?;
    if let Some(before) = before {
        writeln!(io::stdout(), "the previous content is in {}", before.display())?;
    }
    Ok(())
}

pub(super) async fn migrate(config: &Config, from: &Path) -> anyhow::Result<()> {
    let Some(to) = &config.database else { bail!("--to must be the address of a PostgreSQL database") };
    // Where there is no tracker, opening would make one.
    if !from.join(sqlite::DATABASE).exists() {
        return Err(sqlite::OpenError::Missing(from.to_owned()).into());
    }
    let old = Sqlite::open(from).await?;
    let secrets = vault::seal_files(from, config.cluster_key.as_deref(), SystemTime::now())?;
    let taken = take_over(&old, to, &secrets).await;
    old.close().await;
    let Taken { accounts, groups, files, sessions } = taken?;
    writeln!(
        io::stdout(),
        "{} was taken over into {to}: accounts {accounts}, groups {groups}, files {files}, sessions {sessions}; serve with --database and another --data-dir from now on",
        from.display()
    )?;
    Ok(())
}

pub(super) async fn set_disabled(config: &Config, name: &str, disabled: bool) -> anyhow::Result<()> {
    let user = username(name)?;
    let store = database::open_beside(config).await?;
    let done = store.set_disabled(&user, disabled, &origin()).await;
    store.close().await;
    done.with_context(|| name.to_owned())?;
    let what =
        if disabled { "disabled; its sessions and transfers end within 15 seconds" } else { "enabled" };
    writeln!(io::stdout(), "{user} is {what}")?;
    Ok(())
}

/// The hash of the password in the first line of standard input.
async fn chosen_password() -> anyhow::Result<String> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let password = Password::chosen(line.trim_end_matches(['\r', '\n']).to_owned())?;
    Ok(Hasher::new()?.hash(password).await?)
}

pub(super) async fn create_user(config: &Config, name: &str) -> anyhow::Result<()> {
    let user = username(name)?;
    let hash = chosen_password().await?;
    let store = database::open_beside(config).await?;
    let done = store.create_account(&user, &hash, None, &origin()).await;
    store.close().await;
    done.with_context(|| name.to_owned())?;
    writeln!(io::stdout(), "the account {user} was created")?;
    Ok(())
}

pub(super) async fn reset_password(config: &Config, name: &str) -> anyhow::Result<()> {
    let user = username(name)?;
    let hash = chosen_password().await?;
    let store = database::open_beside(config).await?;
    let done = store.reset_password(&user, &hash, &origin()).await;
    store.close().await;
    done.with_context(|| name.to_owned())?;
    writeln!(io::stdout(), "{user} has a new password; all sessions of that user have ended")?;
    Ok(())
}

pub(super) async fn audit(config: &Config, since: Option<&str>, json: bool) -> anyhow::Result<()> {
    let since = since.map_or(Ok(SystemTime::UNIX_EPOCH), |text| moment(text, SystemTime::now()))?;
    let store = database::open_beside(config).await?;
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
        let row = serde_json::json!({
            "id": row.id, "at": at, "actor": row.actor, "ip": row.ip, "action": row.action, "object": row.object,
            "request": row.request,
        });
        return writeln!(out, "{}", escape_json(&row.to_string()));
    }
    let actor = row.actor.as_deref().unwrap_or("-");
    let ip = row.ip.as_deref().unwrap_or("-");
    // Objects contain user input, which an earlier rule for names may have accepted.
    writeln!(out, "{at}  {actor:<16} {ip:<15} {:<18} {}", row.action, escape(&row.object))
}

/// Parses a time, or an age before `now`.
fn moment(text: &str, now: SystemTime) -> anyhow::Result<SystemTime> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.into());
    }
    let age = text.parse::<jiff::SignedDuration>().ok().and_then(|age| Duration::try_from(age).ok());
    age.or_else(|| days(text))
        .and_then(|age| now.checked_sub(age))
        .with_context(|| format!("{text:?} is not a time like 2026-01-31T08:00:00Z or an age like 2h or 7d"))
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
