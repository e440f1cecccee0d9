//! The lookups that decide whether a call is allowed: sessions, and in one statement all that a call in a group needs.
//! They are compiled for each database: see [`super::super::sql`].

use std::sync::Arc;

use async_trait::async_trait;
use proto::domain::GroupId;

use super::{
    Database,
    files::{Columns, file_columns},
    groups::{standing, standing_of},
    lookup::{Row, RowResult},
    stored, time, tokens,
};
use crate::{
    domain::{
        Session, SessionHash,
        access::{Evidence, GroupKey, Place},
        session::{AccountId, Machine},
    },
    store::{Asked, FileRow, Result, Rulings},
};

/// The session with the hash `$1`, or the token in its place, as `s`, with its account `a`. With an argument, all
/// sessions and tokens whose hash meets this condition.
macro_rules! session_rows {
    () => {
        session_rows!("= $1")
    };
    ($hash:literal) => {
        concat!(
            "(SELECT hash, account, opened_at, used_at, CAST(NULL AS BIGINT) AS expires_at, CAST(NULL AS TEXT) AS name,
                     CAST(NULL AS TEXT) AS allow, CAST(NULL AS TEXT) AS in_groups
              FROM sessions WHERE hash ",
            $hash,
            " UNION ALL SELECT hash, account, created_at, used_at, expires_at, name, allow, in_groups
              FROM tokens WHERE hash ",
            $hash,
            ") s JOIN accounts a ON a.id = s.account"
        )
    };
}
pub(super) use session_rows;

/// The columns of [`session_rows`], for [`SessionColumns`].
macro_rules! session_columns {
    () => {
        "a.username, a.id AS account, a.disabled, s.opened_at, s.used_at, s.expires_at, s.name AS token, s.allow, s.in_groups"
    };
}
pub(super) use session_columns;

/// The columns of a session.
pub(super) struct SessionColumns {
    username: String,
    account: i64,
    disabled: bool,
    opened: i64,
    used: i64,
    token: Option<TokenColumns>,
}

/// What a token has besides: the time when it expires, and its scope.
struct TokenColumns {
    expires: i64,
    name: String,
    allow: String,
    groups: Option<String>,
}

impl SessionColumns {
    pub(super) fn read(row: &Row<'_>) -> RowResult<Self> {
        let expires: Option<i64> = row.get(5)?;
        let token = match expires {
            Some(expires) => {
                Some(TokenColumns { expires, name: row.get(6)?, allow: row.get(7)?, groups: row.get(8)? })
            }
            None => None,
        };
        Ok(Self {
            username: row.get(0)?,
            account: row.get(1)?,
            disabled: row.get(2)?,
            opened: row.get(3)?,
            used: row.get(4)?,
            token,
        })
    }

    pub(super) fn session(self, hash: SessionHash) -> Result<Session> {
        let machine = |token: TokenColumns| -> Result<Machine> {
            let scope = tokens::scope(&token.name, &token.allow, token.groups.as_deref())?;
            Ok(Machine { scope: Arc::new(scope), expires: time(token.expires) })
        };
        Ok(Session {
            hash,
            user: stored(&self.username)?,
            account: AccountId(self.account),
            disabled: self.disabled,
            opened: time(self.opened),
            used: time(self.used),
            machine: self.token.map(machine).transpose()?,
        })
    }
}

/// The statement with the session, the place in the group `$2`, and the file `f` for which this holds.
macro_rules! evidence {
    ($file:literal) => {
        concat!(
            "SELECT ",
            session_columns!(),
            ", g.id AS group_key, g.epoch, ",
            standing_of!("a.id"),
            " AS standing, ",
            file_columns!(),
            " FROM ",
            session_rows!(),
            " LEFT JOIN groups g ON g.name = $2 LEFT JOIN files f ON f.group_id = g.id AND ",
            $file,
            " LEFT JOIN accounts p ON p.id = f.publisher"
        )
    };
}

/// The columns of that statement.
struct EvidenceColumns {
    session: SessionColumns,
    place: Option<Place>,
    file: Option<Columns>,
}

impl EvidenceColumns {
    fn read(row: &Row<'_>) -> RowResult<Self> {
        let key: Option<i64> = row.get(9)?;
        let place = match key {
            Some(key) => Some(Place {
                group: GroupKey(key),
                epoch: row.get::<_, i64>(10)?.cast_unsigned(),
                standing: standing(row.get(11)?),
            }),
            None => None,
        };
        let file: Option<Vec<u8>> = row.get("id")?;
        let file = file.is_some().then(|| Columns::read(row)).transpose()?;
        Ok(Self { session: SessionColumns::read(row)?, place, file })
    }
}

#[async_trait]
impl Rulings for Database {
    async fn evidence(
        &self,
        session: SessionHash,
        group: &GroupId,
        asked: Asked<'_>,
    ) -> Result<Evidence<FileRow>> {
        let (hash, group, read) = (&session.as_bytes()[..], group.as_str(), EvidenceColumns::read);
        let found = match asked {
            Asked::Nothing => self.one(evidence!("1 = 0"), (hash, group), read).await?,
            Asked::Named(name) => {
                self.one(evidence!("f.name = $3"), (hash, group, name.as_str()), read).await?
            }
            Asked::File(id) => {
                self.one(evidence!("f.id = $3"), (hash, group, &id.as_bytes()[..]), read).await?
            }
        };
        let Some(EvidenceColumns { session: columns, place, file }) = found else {
            return Ok(Evidence::new(None, None, None));
        };
        let file = file.map(FileRow::try_from).transpose()?;
        Ok(Evidence::new(Some(columns.session(session)?), place, file))
    }
}
