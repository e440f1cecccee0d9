//! The counts of failed logins and of new accounts, over all trackers. The time is the server's, because trackers' clocks differ.

use std::{net::IpAddr, time::Duration};

use super::{CLOCK, Postgres, Result};
use crate::domain::{
    newcomers,
    throttle::{Count, Counts, FORGET, Login, Step, Wait},
};

/// How long it is kept that an account has logged in from a network.
const KNOWN: Duration = Duration::from_hours(90 * 24);

type CountRow = (String, i64, i64, bool);

impl Postgres {
    /// See [`super::Shared::count_login`]. The transactions run one at a time, so that concurrent guesses gain
    /// nothing.
    pub(super) async fn count(&self, login: &Login, step: Step) -> Result<std::result::Result<Counts, Wait>> {
        let keys = login.keys().map(|key| key.map(|key| key.to_string()));
        let mut write = self.begin_login().await?;
        let (now,): (i64,) = sqlx::query_as(CLOCK).fetch_one(write.tx()).await?;
        let named: Vec<String> = keys.iter().flatten().cloned().collect();
        let rows: Vec<CountRow> =
            sqlx::query_as("SELECT key, failures, at, known FROM logins WHERE key = ANY($1)")
                .bind(&named)
                .fetch_all(write.tx())
                .await?;
        let before = keys.each_ref().map(|key| {
            let (_, failures, at, known) = rows.iter().find(|(row, ..)| Some(row) == key.as_ref())?;
            let failures = u32::try_from(*failures).unwrap_or(u32::MAX);
            Some(Count { failures, at: Duration::from_millis(at.unsigned_abs()), known: *known })
        });
        let after = match login.step(step, before, Duration::from_millis(now.unsigned_abs())) {
            Ok(after) => after,
            Err(wait) => return Ok(Err(wait)),
        };
        for (key, count) in keys.iter().zip(after).filter_map(|(key, count)| Some((key.as_ref()?, count?))) {
            sqlx::query(
                "INSERT INTO logins (key, failures, at, known) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (key) DO UPDATE SET failures = $2, at = $3, known = $4",
            )
            .bind(key)
            .bind(i64::from(count.failures))
            .bind(i64::try_from(count.at.as_millis()).unwrap_or(i64::MAX))
            .bind(count.known)
            .execute(write.tx())
            .await?;
        }
        write.commit().await?;
        Ok(Ok(after))
    }

    /// See [`super::Shared::count_newcomer`].
    pub(super) async fn count_account(&self, network: IpAddr) -> Result<std::result::Result<(), Duration>> {
        let mut write = self.begin_login().await?;
        let (now,): (i64,) = sqlx::query_as(CLOCK).fetch_one(write.tx()).await?;
        let due: Option<(i64,)> = sqlx::query_as("SELECT due FROM newcomers WHERE network = $1")
            .bind(network.to_string())
            .fetch_optional(write.tx())
            .await?;
        let moment = |millis: i64| Duration::from_millis(millis.unsigned_abs());
        let due = match newcomers::admit(due.map(|(due,)| moment(due)), moment(now)) {
            Ok(due) => due,
            Err(wait) => return Ok(Err(wait)),
        };
        let sql = "INSERT INTO newcomers (network, due) VALUES ($1, $2)
                   ON CONFLICT (network) DO UPDATE SET due = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(i64::try_from(due.as_millis()).unwrap_or(i64::MAX))
            .execute(write.tx())
            .await?;
        write.commit().await?;
        Ok(Ok(()))
    }

    /// Deletes counts that no longer matter.
    pub(super) async fn forget_logins(&self) -> Result<()> {
        let sql = format!("DELETE FROM newcomers WHERE due < ({CLOCK})");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(self.writes()).await?;
        let sql = format!(
            "DELETE FROM logins WHERE at < ({CLOCK}) - CASE WHEN known THEN CAST($1 AS BIGINT) ELSE CAST($2 AS BIGINT) END"
        );
        let millis = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(millis(KNOWN))
            .bind(millis(FORGET))
            .execute(self.writes())
            .await?;
        Ok(())
    }
}
