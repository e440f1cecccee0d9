//! Accounts, sessions and peers. For each database: see [`super::super::sql`].

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use proto::domain::{PeerId, Username};

use super::{
    Database, Write, before, count,
    lookup::Row,
    millis,
    rulings::{SessionColumns, session_columns, session_rows},
    stored, taken,
};
use crate::{
    domain::{
        Action, Caller, Change, Origin, Refusal, Session, SessionHash,
        access::GroupKey,
        quota::{Quota, SESSIONS},
        session::{self, AccountId},
    },
    store::{Accounts, Credentials, InviteKey, PeerOwner, Peers, Result, Sessions},
};

/// A time of use that is further ahead than this means that the clock was set back. Two concurrent calls may
/// differ by less.
const CLOCK_SLACK: Duration = Duration::from_mins(1);

impl Write<'_> {
    async fn account(&mut self, user: &Username) -> Result<AccountId> {
        let found: Option<(i64,)> = sqlx::query_as("SELECT id FROM accounts WHERE username = $1")
            .bind(user.as_str())
            .fetch_optional(self.tx())
            .await?;
        found.map(|(id,)| AccountId(id)).ok_or(Refusal::UserNotFound.into())
    }

    /// Ends all sessions of an account, except `but` if it is given. Returns their number.
    async fn end_sessions(
        &mut self,
        account: AccountId,
        but: Option<SessionHash>,
        now: SystemTime,
    ) -> Result<u32> {
        let sql = "DELETE FROM sessions WHERE account = $1 AND hash IS DISTINCT FROM $2 RETURNING hash";
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(sql)
            .bind(account.0)
            .bind(but.map(|hash| hash.as_bytes().to_vec()))
            .fetch_all(self.tx())
            .await?;
        self.sessions_ended(&ended, now).await?;
        Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
    }

    async fn set_password(&mut self, account: AccountId, password: &str) -> Result<()> {
        let sql = "UPDATE accounts SET password = $1 WHERE id = $2";
        sqlx::query(sql).bind(password).bind(account.0).execute(self.tx()).await?;
        Ok(())
    }
}

#[async_trait]
impl Accounts for Database {
    async fn create_account(
        &self,
        user: &Username,
        password: &str,
        invitation: Option<&InviteKey>,
        origin: &Origin,
    ) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "INSERT INTO accounts (username, password, created_at) VALUES ($1, $2, $3) RETURNING id";
        let inserted: std::result::Result<(i64,), _> = sqlx::query_as(sql)
            .bind(user.as_str())
            .bind(password)
            .bind(millis(origin.at))
            .fetch_one(write.tx())
            .await;
        let account = AccountId(taken(inserted, Refusal::UsernameTaken)?.0);
        if let Some(invitation) = invitation {
            write.use_invite((account, user), invitation, origin).await?;
        }
        write.audit(Action::CreateUser, user.as_str(), origin).await?;
        write.commit().await
    }

    async fn credentials(&self, user: &Username) -> Result<Option<Credentials>> {
        let sql = "SELECT id, password, disabled FROM accounts WHERE username = $1";
        let row: Option<(i64, String, bool)> =
            sqlx::query_as(sql).bind(user.as_str()).fetch_optional(self.reads()).await?;
        Ok(row.map(|(id, password, disabled)| Credentials { account: AccountId(id), password, disabled }))
    }

    async fn change_password(&self, caller: &Caller, old: &str, new: &str, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "UPDATE accounts SET password = $1 WHERE id = $2 AND password = $3";
        let changed =
            sqlx::query(sql).bind(new).bind(caller.account().0).bind(old).execute(write.tx()).await?;
        if changed.rows_affected() == 0 {
            return Err(Refusal::WrongPassword.into());
        }
        write.end_sessions(caller.account(), Some(caller.session()), origin.at).await?;
        write.audit(Action::ChangePassword, caller.user().as_str(), origin).await?;
        write.commit().await
    }

    async fn reset_password(&self, user: &Username, new: &str, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let account = write.account(user).await?;
        write.set_password(account, new).await?;
        write.end_sessions(account, None, origin.at).await?;
        write.end_tokens(account, origin.at).await?;
        write.audit(Action::ResetPassword, user.as_str(), origin).await?;
        write.commit().await
    }

    async fn set_disabled(&self, user: &Username, disabled: bool, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let account = write.account(user).await?;
        let sql = "UPDATE accounts SET disabled = $1 WHERE id = $2";
        sqlx::query(sql).bind(disabled).bind(account.0).execute(write.tx()).await?;
        if disabled {
            write.end_sessions(account, None, origin.at).await?;
            write.end_tokens(account, origin.at).await?;
            let sql =
                "SELECT g.id, g.name FROM members m JOIN groups g ON g.id = m.group_id WHERE m.account = $1";
            let groups: Vec<(i64, String)> =
                sqlx::query_as(sql).bind(account.0).fetch_all(write.tx()).await?;
            for (id, name) in groups {
                let epoch = write.raise_epoch(GroupKey(id)).await?;
                let gone = Change::MemberGone { group: stored(&name)?, user: user.clone(), epoch };
                write.change(&gone, origin.at).await?;
            }
            write.change(&Change::UserDisabled { user: user.clone() }, origin.at).await?;
        }
        let action = if disabled { Action::DisableUser } else { Action::EnableUser };
        write.audit(action, user.as_str(), origin).await?;
        write.commit().await
    }
}

#[async_trait]
impl Sessions for Database {
    async fn open_session(
        &self,
        verified: &Credentials,
        rehashed: Option<&str>,
        session: SessionHash,
        origin: &Origin,
    ) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "SELECT username FROM accounts WHERE id = $1 AND password = $2 AND NOT disabled";
        let row: Option<(String,)> = sqlx::query_as(sql)
            .bind(verified.account.0)
            .bind(&verified.password)
            .fetch_optional(write.tx())
            .await?;
        let (user,) = row.ok_or(Refusal::BadCredentials)?;
        if let Some(password) = rehashed {
            write.set_password(verified.account, password).await?;
        }
        let sql = "DELETE FROM sessions WHERE account = $1 AND hash NOT IN
                   (SELECT hash FROM sessions WHERE account = $1 ORDER BY used_at DESC LIMIT $2) RETURNING hash";
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(sql)
            .bind(verified.account.0)
            .bind(i64::from(SESSIONS.saturating_sub(1)))
            .fetch_all(write.tx())
            .await?;
        write.sessions_ended(&ended, origin.at).await?;
        let sql = "INSERT INTO sessions (hash, account, opened_at, used_at) VALUES ($1, $2, $3, $3)";
        sqlx::query(sql)
            .bind(session.as_bytes().to_vec())
            .bind(verified.account.0)
            .bind(millis(origin.at))
            .execute(write.tx())
            .await?;
        write.audit(Action::Login, &user, origin).await?;
        write.commit().await
    }

    async fn session(&self, hash: SessionHash) -> Result<Option<Session>> {
        let sql = concat!("SELECT ", session_columns!(), " FROM ", session_rows!());
        let found = self.one(sql, (&hash.as_bytes()[..],), SessionColumns::read).await?;
        found.map(|columns| columns.session(hash)).transpose()
    }

    async fn sessions(&self, hashes: &[SessionHash]) -> Result<Vec<Session>> {
        let found = self.sessions_of(hashes).await?;
        found.into_iter().map(|(hash, columns)| columns.session(hash)).collect()
    }

    async fn touch_session(&self, hash: SessionHash, now: SystemTime) -> Result<()> {
        let sql = "UPDATE sessions SET used_at = $1 WHERE hash = $2 AND used_at < $1";
        let key = &hash.as_bytes()[..];
        let touched = sqlx::query(sql).bind(millis(now)).bind(key).execute(self.writes()).await?;
        if touched.rows_affected() == 0 {
            let sql = "UPDATE tokens SET used_at = $1 WHERE hash = $2 AND used_at < $1";
            sqlx::query(sql).bind(millis(now)).bind(key).execute(self.writes()).await?;
        }
        Ok(())
    }

    async fn expire_sessions(&self, now: SystemTime) -> Result<()> {
        let (idle, absolute) = (before(now, session::IDLE), before(now, session::ABSOLUTE));
        let ahead = millis(now + CLOCK_SLACK);
        let sql =
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE used_at <= $1 OR opened_at <= $2 OR used_at > $3)
                    OR EXISTS (SELECT 1 FROM tokens WHERE expires_at <= $4)";
        let (wanted,): (bool,) = sqlx::query_as(sql)
            .bind(idle)
            .bind(absolute)
            .bind(ahead)
            .bind(millis(now))
            .fetch_one(self.reads())
            .await?;
        if !wanted {
            return Ok(());
        }
        let mut write = self.begin().await?;
        let sql = "DELETE FROM sessions WHERE used_at <= $1 OR opened_at <= $2 RETURNING hash";
        let ended: Vec<(Vec<u8>,)> =
            sqlx::query_as(sql).bind(idle).bind(absolute).fetch_all(write.tx()).await?;
        write.sessions_ended(&ended, now).await?;
        let sql = "DELETE FROM tokens WHERE expires_at <= $1 RETURNING hash";
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(sql).bind(millis(now)).fetch_all(write.tx()).await?;
        write.sessions_ended(&ended, now).await?;
        let sql = "UPDATE sessions SET used_at = $1, opened_at = CASE WHEN opened_at > $1 THEN $1 ELSE opened_at END WHERE used_at > $2";
        sqlx::query(sql).bind(millis(now)).bind(ahead).execute(write.tx()).await?;
        write.commit().await
    }

    async fn sessions_open(&self) -> Result<u64> {
        let (open,): (i64,) = sqlx::query_as("SELECT count(*) FROM sessions").fetch_one(self.reads()).await?;
        Ok(count(open))
    }

    async fn end_session(&self, caller: &Caller, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE hash = $1")
            .bind(&caller.session().as_bytes()[..])
            .execute(write.tx())
            .await?;
        write.change(&Change::SessionEnded { session: caller.session() }, origin.at).await?;
        write.audit(Action::Logout, caller.user().as_str(), origin).await?;
        write.commit().await
    }

    async fn end_sessions(&self, caller: &Caller, origin: &Origin) -> Result<u32> {
        let mut write = self.begin().await?;
        let ended = write.end_sessions(caller.account(), None, origin.at).await?;
        write.audit(Action::LogoutAll, caller.user().as_str(), origin).await?;
        write.commit().await?;
        Ok(ended)
    }
}

#[async_trait]
impl Peers for Database {
    async fn register_peer(
        &self,
        caller: &Caller,
        peer: PeerId,
        expires: SystemTime,
        origin: &Origin,
    ) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "SELECT count(*) FROM peers WHERE account = $1 AND peer <> $2 AND expires_at > $3";
        let (others,): (i64,) = sqlx::query_as(sql)
            .bind(caller.account().0)
            .bind(&peer.as_bytes()[..])
            .bind(millis(origin.at))
            .fetch_one(write.tx())
            .await?;
        Quota::Peers.admit(count(others), 1)?;
        let sql = "INSERT INTO peers (peer, account, expires_at, token)
                   VALUES ($1, $2, $3, (SELECT id FROM tokens WHERE hash = $4))
                   ON CONFLICT (peer) DO UPDATE
                   SET account = excluded.account, expires_at = excluded.expires_at, token = excluded.token";
        sqlx::query(sql)
            .bind(&peer.as_bytes()[..])
            .bind(caller.account().0)
            .bind(millis(expires))
            .bind(&caller.session().as_bytes()[..])
            .execute(write.tx())
            .await?;
        write.audit(Action::IssuePeerCert, &peer.to_string(), origin).await?;
        write.commit().await
    }

    async fn peer_owner(&self, peer: PeerId) -> Result<Option<PeerOwner>> {
        let sql = "SELECT a.username, t.name FROM peers p JOIN accounts a ON a.id = p.account
                   LEFT JOIN tokens t ON t.id = p.token WHERE p.peer = $1";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?));
        let Some((user, token)) = self.one(sql, (&peer.as_bytes()[..],), read).await? else {
            return Ok(None);
        };
        let token = token.map(|name| stored(&name)).transpose()?;
        Ok(Some(PeerOwner { user: stored(&user)?, token }))
    }
}
