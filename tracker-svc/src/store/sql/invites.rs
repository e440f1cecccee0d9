//! Invitations to groups. For each database: see [`super::super::sql`].

use std::time::SystemTime;

use async_trait::async_trait;
use proto::domain::Username;

use super::{Database, Write, count, millis, stored, taken, time};
use crate::{
    domain::{
        Action, Caller, Management, Origin, Refusal, Standing, access::GroupKey, audit::about_invite,
        invite::NewInvite, quota::Quota, session::AccountId,
    },
    store::{InviteKey, InviteRow, Invites, Result},
};

/// An invitation by its secret: `$1` the hash, `$2` the group's name, `$3` the time.
const VALID: &str = "SELECT i.id, g.id FROM invites i JOIN groups g ON g.id = i.group_id
                     JOIN accounts a ON a.id = i.account
                     WHERE i.hash = $1 AND g.name = $2 AND i.expires_at > $3 AND NOT a.disabled";

impl Write<'_> {
    /// Makes an account a member by an invitation, and takes one use. Does nothing if it is a member already.
    pub(super) async fn use_invite(
        &mut self,
        (account, user): (AccountId, &Username),
        invitation: &InviteKey,
        origin: &Origin,
    ) -> Result<()> {
        let InviteKey { group, hash } = invitation;
        let row: Option<(i64, i64)> = sqlx::query_as(VALID)
            .bind(&hash.as_bytes()[..])
            .bind(group.as_str())
            .bind(millis(origin.at))
            .fetch_optional(self.tx())
            .await?;
        let (invite, key) = row.ok_or(Refusal::InviteInvalid)?;
        let key = GroupKey(key);
        if self.standing(key, account).await? >= Standing::Reader {
            return Ok(());
        }
        let sql = "UPDATE invites SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0";
        let used = sqlx::query(sql).bind(invite).execute(self.tx()).await?;
        if used.rows_affected() == 0 {
            return Err(Refusal::InviteInvalid.into());
        }
        let sql = "INSERT INTO invite_uses (invite, account, used_at) VALUES ($1, $2, $3)";
        let noted =
            sqlx::query(sql).bind(invite).bind(account.0).bind(millis(origin.at)).execute(self.tx()).await;
        taken(noted, Refusal::InviteInvalid)?;
        self.take_request(key, account).await?;
        self.admit_member((key, group), (account, user), origin.at).await?;
        let origin = Origin { actor: Some(user.clone().into()), ..origin.clone() };
        self.audit(Action::JoinByInvite, &about_invite(group, invite), &origin).await
    }
}

#[async_trait]
impl Invites for Database {
    async fn create_invite(&self, owner: &Management, invite: &NewInvite, origin: &Origin) -> Result<i64> {
        let mut write = self.begin().await?;
        write.still_manager(owner).await?;
        let sql = "SELECT count(*) FROM invites WHERE group_id = $1 AND expires_at > $2";
        let (open,): (i64,) =
            sqlx::query_as(sql).bind(owner.key().0).bind(millis(origin.at)).fetch_one(write.tx()).await?;
        Quota::Invites.admit(count(open), 1)?;
        if let Some(file) = &invite.file {
            let sql = "SELECT EXISTS (SELECT 1 FROM files WHERE group_id = $1 AND name = $2)";
            let (is_there,): (bool,) =
                sqlx::query_as(sql).bind(owner.key().0).bind(file.as_str()).fetch_one(write.tx()).await?;
            if !is_there {
                return Err(Refusal::FileNotFound.into());
            }
        }
        let sql =
            "INSERT INTO invites (group_id, account, hash, file, uses, uses_left, created_at, expires_at)
                   VALUES ($1, $2, $3, $4, $5, $5, $6, $7) RETURNING id";
        let (id,): (i64,) = sqlx::query_as(sql)
            .bind(owner.key().0)
            .bind(owner.account().0)
            .bind(&invite.hash.as_bytes()[..])
            .bind(invite.file.as_ref().map(|name| name.as_str()))
            .bind(i64::from(invite.uses))
            .bind(millis(origin.at))
            .bind(millis(invite.expires))
            .fetch_one(write.tx())
            .await?;
        write.audit(Action::CreateInvite, &about_invite(owner.group(), id), origin).await?;
        write.commit().await?;
        Ok(id)
    }

    async fn invites(
        &self,
        owner: &Management,
        after: i64,
        limit: u32,
        now: SystemTime,
    ) -> Result<Vec<InviteRow>> {
        let sql = "SELECT i.id, a.username, i.file, i.uses, i.uses_left, i.created_at, i.expires_at
                   FROM invites i JOIN accounts a ON a.id = i.account
                   WHERE i.group_id = $1 AND i.id > $2 AND i.expires_at > $3 ORDER BY i.id LIMIT $4";
        type Row = (i64, String, Option<String>, i64, i64, i64, i64);
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(owner.key().0)
            .bind(after)
            .bind(millis(now))
            .bind(i64::from(limit))
            .fetch_all(self.reads())
            .await?;
        let row = |(id, by, file, uses, left, since, expires): Row| {
            Ok(InviteRow {
                id,
                by: stored(&by)?,
                file: file.map(|name| stored(&name)).transpose()?,
                uses: u32::try_from(uses).unwrap_or(u32::MAX),
                uses_left: u32::try_from(left).unwrap_or(0),
                since: time(since),
                expires: time(expires),
            })
        };
        rows.into_iter().map(row).collect()
    }

    async fn revoke_invite(&self, owner: &Management, id: i64, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_manager(owner).await?;
        let sql = "DELETE FROM invites WHERE group_id = $1 AND id = $2";
        let gone = sqlx::query(sql).bind(owner.key().0).bind(id).execute(write.tx()).await?;
        if gone.rows_affected() == 0 {
            return Err(Refusal::InviteNotFound.into());
        }
        write.audit(Action::RevokeInvite, &about_invite(owner.group(), id), origin).await?;
        write.commit().await
    }

    async fn join_by_invite(&self, caller: &Caller, invitation: &InviteKey, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.use_invite((caller.account(), caller.user()), invitation, origin).await?;
        write.commit().await
    }

    async fn is_invited(&self, invitation: &InviteKey, now: SystemTime) -> Result<bool> {
        let row: Option<(i64, i64)> = sqlx::query_as(VALID)
            .bind(&invitation.hash.as_bytes()[..])
            .bind(invitation.group.as_str())
            .bind(millis(now))
            .fetch_optional(self.reads())
            .await?;
        let Some((invite, _)) = row else { return Ok(false) };
        let (left,): (i64,) = sqlx::query_as("SELECT uses_left FROM invites WHERE id = $1")
            .bind(invite)
            .fetch_optional(self.reads())
            .await?
            .unwrap_or((0,));
        Ok(left > 0)
    }
}
