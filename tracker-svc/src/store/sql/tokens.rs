//! Tokens for machines. For each database: see [`super::super::sql`].

use std::{collections::BTreeSet, time::SystemTime};

use async_trait::async_trait;
use proto::domain::{GroupId, TokenName};

use super::{Database, Write, count, millis, stored, taken, time};
use crate::{
    domain::{
        Action, Caller, Origin, Refusal,
        audit::about_token,
        quota::Quota,
        session::AccountId,
        token::{Allow, NewToken, TokenScope},
    },
    store::{Result, StoreError, TokenRow, Tokens},
};

/// What stands between the names of a token's groups. No name has it.
const BETWEEN: char = '/';

/// The scope of a token from its columns.
pub(super) fn scope(name: &str, allow: &str, groups: Option<&str>) -> Result<TokenScope> {
    let unknown = || StoreError::Fault(format!("the stored level {allow:?} of a token is not known"));
    let read = |all: &str| -> Result<BTreeSet<GroupId>> {
        all.split(BETWEEN).filter(|group| !group.is_empty()).map(stored).collect()
    };
    Ok(TokenScope {
        name: stored(name)?,
        allow: Allow::from_text(allow).ok_or_else(unknown)?,
        groups: groups.map(read).transpose()?,
    })
}

impl Write<'_> {
    /// Ends all tokens of an account.
    pub(super) async fn end_tokens(&mut self, account: AccountId, now: SystemTime) -> Result<()> {
        let sql = "DELETE FROM tokens WHERE account = $1 RETURNING hash";
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(sql).bind(account.0).fetch_all(self.tx()).await?;
        self.sessions_ended(&ended, now).await
    }
}

#[async_trait]
impl Tokens for Database {
    async fn create_token(&self, caller: &Caller, token: &NewToken, origin: &Origin) -> Result<()> {
        let NewToken { hash, scope, expires } = token;
        let groups = scope
            .groups
            .as_ref()
            .map(|groups| groups.iter().map(GroupId::as_str).collect::<Vec<_>>().join(&BETWEEN.to_string()));
        let mut write = self.begin().await?;
        let sql = "SELECT count(*) FROM tokens WHERE account = $1 AND expires_at > $2";
        let (open,): (i64,) = sqlx::query_as(sql)
            .bind(caller.account().0)
            .bind(millis(origin.at))
            .fetch_one(write.tx())
            .await?;
        Quota::Tokens.admit(count(open), 1)?;
        let sql =
            "INSERT INTO tokens (account, name, hash, allow, in_groups, created_at, used_at, expires_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $6, $7)";
        let inserted = sqlx::query(sql)
            .bind(caller.account().0)
            .bind(scope.name.as_str())
            .bind(&hash.as_bytes()[..])
            .bind(scope.allow.as_str())
            .bind(groups)
            .bind(millis(origin.at))
            .bind(millis(*expires))
            .execute(write.tx())
            .await;
        taken(inserted, Refusal::TokenTaken)?;
        write.audit(Action::CreateToken, &about_token(caller.user(), &scope.name), origin).await?;
        write.commit().await
    }

    async fn tokens(&self, caller: &Caller, now: SystemTime) -> Result<Vec<TokenRow>> {
        let sql = "SELECT name, allow, in_groups, created_at, used_at, expires_at FROM tokens
                   WHERE account = $1 AND expires_at > $2 ORDER BY name";
        type Row = (String, String, Option<String>, i64, i64, i64);
        let rows: Vec<Row> =
            sqlx::query_as(sql).bind(caller.account().0).bind(millis(now)).fetch_all(self.reads()).await?;
        let row = |(name, allow, groups, since, used, expires): Row| {
            Ok(TokenRow {
                scope: scope(&name, &allow, groups.as_deref())?,
                since: time(since),
                used: time(used),
                expires: time(expires),
            })
        };
        rows.into_iter().map(row).collect()
    }

    async fn revoke_token(&self, caller: &Caller, name: &TokenName, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "DELETE FROM tokens WHERE account = $1 AND name = $2 RETURNING hash";
        let ended: Vec<(Vec<u8>,)> =
            sqlx::query_as(sql).bind(caller.account().0).bind(name.as_str()).fetch_all(write.tx()).await?;
        if ended.is_empty() {
            return Err(Refusal::TokenNotFound.into());
        }
        write.sessions_ended(&ended, origin.at).await?;
        write.audit(Action::RevokeToken, &about_token(caller.user(), name), origin).await?;
        write.commit().await
    }
}
