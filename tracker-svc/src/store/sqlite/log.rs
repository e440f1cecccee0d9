//! Audit rows and changes.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Sqlite, Write, millis, stored, stored_bytes, time};
use crate::{
    domain::{Action, Origin, session},
    events::Change,
    store::{AuditRow, Log, Result, StoreError},
};

/// How long changes are kept: far longer than any reader is behind.
const KEEP_CHANGES: Duration = Duration::from_hours(1);
/// How long audit rows are kept.
const KEEP_AUDIT: Duration = Duration::from_hours(90 * 24);
/// Most changes read at once.
const CHANGES_A_READ: i64 = 1_000;

type ChangeRow = (i64, String, Option<String>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);
type AuditColumns = (i64, i64, Option<String>, Option<String>, String, String, String);

impl Write<'_> {
    /// Writes a change that others must hear of once this is committed.
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
        let sql = "INSERT INTO changes (at, kind, group_name, username, file, session, epoch) VALUES (?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(sql)
            .bind(millis(now))
            .bind(kind)
            .bind(group)
            .bind(user)
            .bind(file)
            .bind(session)
            .bind(epoch)
            .execute(&mut *self.tx)
            .await?;
        self.changes = true;
        Ok(())
    }

    /// Tells of sessions that were deleted.
    pub(super) async fn sessions_ended(&mut self, hashes: &[(Vec<u8>,)], now: SystemTime) -> Result<()> {
        for (hash,) in hashes {
            let hash: [u8; 32] = stored_bytes(hash)?;
            self.change(&Change::SessionEnded { session: hash.into() }, now).await?;
        }
        Ok(())
    }
}

fn decode((number, kind, group, user, file, session, epoch): ChangeRow) -> Result<(i64, Change)> {
    let missing = || StoreError::Fault(format!("change {number} ({kind}) lacks a field"));
    let group = || stored(group.as_deref().ok_or_else(missing)?);
    let user = || stored(user.as_deref().ok_or_else(missing)?);
    let epoch = || epoch.map(i64::cast_unsigned).ok_or_else(missing);
    let change = match kind.as_str() {
        "session_ended" => {
            let hash: [u8; 32] = stored_bytes(session.as_deref().ok_or_else(missing)?)?;
            Change::SessionEnded { session: hash.into() }
        }
        "member_gone" => Change::MemberGone { group: group()?, user: user()?, epoch: epoch()? },
        "file_gone" => {
            Change::FileGone { group: group()?, file: stored_bytes(file.as_deref().ok_or_else(missing)?)? }
        }
        "group_gone" => Change::GroupGone { group: group()?, epoch: epoch()? },
        "user_disabled" => Change::UserDisabled { user: user()? },
        _ => return Err(StoreError::Fault(format!("change {number} is of an unknown kind, {kind:?}"))),
    };
    Ok((number, change))
}

#[async_trait]
impl Log for Sqlite {
    async fn record(&self, action: Action, object: &str, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.audit(action, object, origin).await?;
        write.commit().await
    }

    async fn audit(&self, since: SystemTime, after: i64, limit: u32) -> Result<Vec<AuditRow>> {
        let sql = "SELECT id, at, actor, ip, action, object, request FROM audit
                   WHERE at >= ? AND id > ? ORDER BY id LIMIT ?";
        let rows: Vec<AuditColumns> =
            sqlx::query_as(sql).bind(millis(since)).bind(after).bind(limit).fetch_all(&self.readers).await?;
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
            sqlx::query_as("SELECT coalesce(max(number), 0) FROM changes").fetch_one(&self.readers).await?;
        Ok(last)
    }

    async fn changes(&self, after: i64) -> Result<Vec<(i64, Change)>> {
        let sql = "SELECT number, kind, group_name, username, file, session, epoch FROM changes
                   WHERE number > ? ORDER BY number LIMIT ?";
        let rows: Vec<ChangeRow> =
            sqlx::query_as(sql).bind(after).bind(CHANGES_A_READ).fetch_all(&self.readers).await?;
        rows.into_iter().map(decode).collect()
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn prune(&self, now: SystemTime) -> Result<()> {
        let before =
            |age: Duration| millis(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut write = self.begin().await?;
        let sql = "DELETE FROM sessions WHERE used_at < ? OR opened_at < ? RETURNING hash";
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(sql)
            .bind(before(session::IDLE))
            .bind(before(session::ABSOLUTE))
            .fetch_all(&mut *write.tx)
            .await?;
        write.sessions_ended(&ended, now).await?;
        for (sql, age) in [
            ("DELETE FROM changes WHERE at < ?", KEEP_CHANGES),
            ("DELETE FROM audit WHERE at < ?", KEEP_AUDIT),
            ("DELETE FROM peers WHERE expires_at < ?", Duration::ZERO),
        ] {
            sqlx::query(sql).bind(before(age)).execute(&mut *write.tx).await?;
        }
        write.commit().await
    }

    async fn probe(&self) -> Result<()> {
        // A number in the file's header that nothing else uses. It must change: a transaction that leaves all as it was
        // succeeds on a full disk.
        let mut write = self.begin().await?;
        let now = millis(SystemTime::now()) / 1000 % i64::from(i32::MAX);
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {now}")))
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}
