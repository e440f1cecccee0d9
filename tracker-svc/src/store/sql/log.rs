//! Audit rows and changes. For each database: see [`super::super::sql`].

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Database, Write, before, millis, stored, stored_bytes, time};
use crate::{
    domain::{Action, Change, Origin},
    store::{AuditRow, Log, MOST_CHANGES, Result, StoreError},
};

/// How long changes are kept: far longer than any reader lags behind.
const KEEP_CHANGES: Duration = Duration::from_hours(1);
/// How long audit rows are kept.
const KEEP_AUDIT: Duration = Duration::from_hours(90 * 24);

type ChangeRow = (i64, String, Option<String>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);
type AuditColumns = (i64, i64, Option<String>, Option<String>, String, String, String);

impl Write<'_> {
    pub(super) async fn audit(&mut self, action: Action, object: &str, origin: &Origin) -> Result<()> {
        let sql =
            "INSERT INTO audit (at, actor, ip, action, object, request) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(millis(origin.at))
            .bind(origin.actor.as_ref().map(ToString::to_string))
            .bind(origin.ip.map(|ip| ip.to_string()))
            .bind(action.as_str())
            .bind(object)
            .bind(&*origin.request)
            .execute(self.tx())
            .await?;
        Ok(())
    }

    /// Writes a change that running streams are told about after the commit.
    pub(super) async fn change(&mut self, change: &Change, now: SystemTime) -> Result<()> {
        let (mut group, mut user, mut file, mut session, mut epoch) = (None, None, None, None, None);
        let kind = match change {
            Change::SessionEnded { session: ended } => {
                session = Some(ended.as_bytes().to_vec());
                "session_ended"
            }
            Change::MemberGone { group: of, user: gone, epoch: next } => {
                (group, user, epoch) = (Some(of.as_str()), Some(gone.as_str()), Some(next.cast_signed()));
                "member_gone"
            }
            Change::MemberCame { group: of, user: new, epoch: now } => {
                (group, user, epoch) = (Some(of.as_str()), Some(new.as_str()), Some(now.cast_signed()));
                "member_came"
            }
            Change::FilePublished { group: of, file: new } => {
                (group, file) = (Some(of.as_str()), Some(new.as_bytes().to_vec()));
                "file_published"
            }
            Change::FileGone { group: of, file: gone } => {
                (group, file) = (Some(of.as_str()), Some(gone.as_bytes().to_vec()));
                "file_gone"
            }
            Change::GroupGone { group: gone, epoch: next } => {
                (group, epoch) = (Some(gone.as_str()), Some(next.cast_signed()));
                "group_gone"
            }
            Change::UserDisabled { user: disabled } => {
                user = Some(disabled.as_str());
                "user_disabled"
            }
        };
        let sql = "INSERT INTO changes (at, kind, group_name, username, file, session, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(millis(now))
            .bind(kind)
            .bind(group)
            .bind(user)
            .bind(file)
            .bind(session)
            .bind(epoch)
            .execute(self.tx())
            .await?;
        self.changes = true;
        Ok(())
    }

    /// Writes the changes for deleted sessions.
    pub(super) async fn sessions_ended(&mut self, hashes: &[(Vec<u8>,)], now: SystemTime) -> Result<()> {
        for (hash,) in hashes {
            let hash: [u8; 32] = stored_bytes(hash)?;
            self.change(&Change::SessionEnded { session: hash.into() }, now).await?;
        }
        Ok(())
    }
}

fn decode((number, kind, group, user, file, session, epoch): ChangeRow) -> Result<(i64, Change)> {
    let missing = || StoreError::Fault(format!("change {number} ({kind}) has a missing field"));
    let group = || stored(group.as_deref().ok_or_else(missing)?);
    let user = || stored(user.as_deref().ok_or_else(missing)?);
    let file = || stored_bytes(file.as_deref().ok_or_else(missing)?);
    let epoch = || epoch.map(i64::cast_unsigned).ok_or_else(missing);
    let change = match kind.as_str() {
        "session_ended" => {
            let hash: [u8; 32] = stored_bytes(session.as_deref().ok_or_else(missing)?)?;
            Change::SessionEnded { session: hash.into() }
        }
        "member_gone" => Change::MemberGone { group: group()?, user: user()?, epoch: epoch()? },
        "member_came" => Change::MemberCame { group: group()?, user: user()?, epoch: epoch()? },
        "file_published" => Change::FilePublished { group: group()?, file: file()? },
        "file_gone" => Change::FileGone { group: group()?, file: file()? },
        "group_gone" => Change::GroupGone { group: group()?, epoch: epoch()? },
        "user_disabled" => Change::UserDisabled { user: user()? },
        _ => return Err(StoreError::Fault(format!("change {number} has the unknown kind {kind:?}"))),
    };
    Ok((number, change))
}

#[async_trait]
impl Log for Database {
    async fn record(&self, action: Action, object: &str, origin: &Origin) -> Result<()> {
        let mut write = self.begin_append().await?;
        write.audit(action, object, origin).await?;
        write.commit().await
    }

    async fn was_done(
        &self,
        actions: &[Action],
        object: &str,
        origin: &Origin,
        since: SystemTime,
    ) -> Result<bool> {
        let Some(actor) = &origin.actor else { return Ok(false) };
        let sql = "SELECT EXISTS (SELECT 1 FROM audit
                   WHERE request = $1 AND actor = $2 AND object = $3 AND action = $4 AND at >= $5)";
        for action in actions {
            let (done,): (bool,) = sqlx::query_as(sql)
                .bind(&*origin.request)
                .bind(actor.to_string())
                .bind(object)
                .bind(action.as_str())
                .bind(millis(since))
                .fetch_one(self.reads())
                .await?;
            if done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn audit(&self, since: SystemTime, after: i64, limit: u32) -> Result<Vec<AuditRow>> {
        let sql = "SELECT id, at, actor, ip, action, object, request FROM audit
                   WHERE at >= $1 AND id > $2 ORDER BY id LIMIT $3";
        let rows: Vec<AuditColumns> = sqlx::query_as(sql)
            .bind(millis(since))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.reads())
            .await?;
        let row = |(id, at, actor, ip, action, object, request)| AuditRow {
            id,
            at: time(at),
            actor,
            ip,
            action,
            object,
            request,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn last_change(&self) -> Result<i64> {
        let (last,): (i64,) =
            sqlx::query_as("SELECT coalesce(max(number), 0) FROM changes").fetch_one(self.reads()).await?;
        Ok(last)
    }

    async fn changes(&self, after: i64) -> Result<Vec<(i64, Change)>> {
        let sql = "SELECT number, kind, group_name, username, file, session, epoch FROM changes
                   WHERE number > $1 ORDER BY number LIMIT $2";
        let rows: Vec<ChangeRow> =
            sqlx::query_as(sql).bind(after).bind(MOST_CHANGES as i64).fetch_all(self.reads()).await?;
        rows.into_iter().map(decode).collect()
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn prune(&self, now: SystemTime) -> Result<()> {
        let mut write = self.begin().await?;
        for (sql, age) in [
            ("DELETE FROM changes WHERE at < $1", KEEP_CHANGES),
            ("DELETE FROM audit WHERE at < $1", KEEP_AUDIT),
            ("DELETE FROM peers WHERE expires_at < $1", Duration::ZERO),
            ("DELETE FROM invites WHERE expires_at < $1", Duration::ZERO),
        ] {
            sqlx::query(sql).bind(before(now, age)).execute(write.tx()).await?;
        }
        write.commit().await?;
        self.tidy(now).await
    }

    async fn probe(&self) -> Result<()> {
        self.check().await
    }
}
