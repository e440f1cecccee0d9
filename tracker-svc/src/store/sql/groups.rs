//! Groups, members and requests to join. For each database: see [`super::super::sql`].

use std::time::SystemTime;

use async_trait::async_trait;
use proto::domain::{GroupId, Username, look_alike::skeleton, names::fold};

use super::{Database, Write, count, millis, stored, taken, time};
use crate::{
    domain::{
        Action, Applicant, Caller, Change, Management, Membership, Origin, Ownership, Refusal, Standing,
        access::{GroupKey, Place, Role},
        audit::about,
        quota::Quota,
        session::AccountId,
    },
    store::{GroupRow, Groups, PersonRow, Result},
};

/// An account's relation to a group as a number: an SQL expression over `g` (a group) and an account.
macro_rules! standing_of {
    ($account:literal) => {
        concat!(
            "CAST(CASE WHEN g.owner = ",
            $account,
            " THEN 5 ELSE COALESCE((SELECT m.role FROM members m WHERE m.group_id = g.id AND m.account = ",
            $account,
            "), (SELECT 1 FROM requests r WHERE r.group_id = g.id AND r.account = ",
            $account,
            "), 0) END AS BIGINT)"
        )
    };
}

pub(super) use standing_of;

pub(super) fn standing(number: i64) -> Standing {
    match number {
        5 => Standing::Owner,
        4 => Standing::Manager,
        3 => Standing::Member,
        2 => Standing::Reader,
        1 => Standing::Requested,
        _ => Standing::None,
    }
}

fn role_number(role: Role) -> i64 {
    match role {
        Role::Reader => 2,
        Role::Member => 3,
        Role::Manager => 4,
    }
}

impl Write<'_> {
    async fn next_epoch(&mut self) -> Result<u64> {
        let (epoch,): (i64,) =
            sqlx::query_as("UPDATE epoch SET value = value + 1 RETURNING value").fetch_one(self.tx()).await?;
        Ok(epoch.cast_unsigned())
    }

    /// Voids the tickets of a group.
    pub(super) async fn raise_epoch(&mut self, group: GroupKey) -> Result<u64> {
        let epoch = self.next_epoch().await?;
        let sql = "UPDATE groups SET epoch = $1 WHERE id = $2";
        sqlx::query(sql).bind(epoch.cast_signed()).bind(group.0).execute(self.tx()).await?;
        Ok(epoch)
    }

    /// The current relation of an account to a group.
    pub(super) async fn standing(&mut self, group: GroupKey, account: AccountId) -> Result<Standing> {
        let sql = concat!("SELECT ", standing_of!("$1"), " FROM groups g WHERE g.id = $2");
        let row: Option<(i64,)> =
            sqlx::query_as(sql).bind(account.0).bind(group.0).fetch_optional(self.tx()).await?;
        Ok(row.map_or(Standing::None, |(number,)| standing(number)))
    }

    /// Checks that the proof still holds: the owner is the same, and the group was not deleted since.
    pub(super) async fn still_owner(&mut self, owner: &Membership) -> Result<()> {
        match self.standing(owner.key(), owner.account()).await? {
            Standing::Owner => Ok(()),
            Standing::None | Standing::Requested => Err(Refusal::NotAMember.into()),
            Standing::Reader | Standing::Member | Standing::Manager => Err(Refusal::NotTheOwner.into()),
        }
    }

    /// Checks that the proof still holds. Returns whether the user is the owner now.
    pub(super) async fn still_manager(&mut self, manager: &Management) -> Result<bool> {
        match self.standing(manager.key(), manager.account()).await? {
            Standing::Owner => Ok(true),
            Standing::Manager => Ok(false),
            Standing::Reader | Standing::Member => Err(Refusal::NotAManager.into()),
            Standing::None | Standing::Requested => Err(Refusal::NotAMember.into()),
        }
    }

    /// Checks that the member may still publish.
    pub(super) async fn still_publisher(&mut self, member: &Membership) -> Result<()> {
        match self.standing(member.key(), member.account()).await? {
            Standing::None | Standing::Requested => Err(Refusal::NotAMember.into()),
            Standing::Reader => Err(Refusal::ReadsOnly.into()),
            Standing::Member | Standing::Manager | Standing::Owner => Ok(()),
        }
    }

    async fn number(&mut self, sql: &'static str, id: i64) -> Result<u64> {
        let (number,): (i64,) = sqlx::query_as(sql).bind(id).fetch_one(self.tx()).await?;
        Ok(count(number))
    }

    async fn owned(&mut self, account: AccountId) -> Result<u64> {
        self.number("SELECT count(*) FROM groups WHERE owner = $1", account.0).await
    }

    async fn joined(&mut self, account: AccountId) -> Result<u64> {
        self.number("SELECT count(*) FROM members WHERE account = $1", account.0).await
    }

    async fn account_named(&mut self, user: &Username) -> Result<Option<AccountId>> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT id FROM accounts WHERE username = $1")
            .bind(user.as_str())
            .fetch_optional(self.tx())
            .await?;
        Ok(row.map(|(id,)| AccountId(id)))
    }

    async fn add_member(&mut self, group: GroupKey, account: AccountId, now: SystemTime) -> Result<()> {
        let sql = "INSERT INTO members (group_id, account, since) VALUES ($1, $2, $3)";
        sqlx::query(sql).bind(group.0).bind(account.0).bind(millis(now)).execute(self.tx()).await?;
        Ok(())
    }

    /// Makes an account a member, within the quotas, and notes that for the running streams of its peers.
    pub(super) async fn admit_member(
        &mut self,
        (key, group): (GroupKey, &GroupId),
        (account, user): (AccountId, &Username),
        now: SystemTime,
    ) -> Result<()> {
        let members = self.number("SELECT members FROM groups WHERE id = $1", key.0).await?;
        Quota::Members.admit(members, 1)?;
        Quota::GroupsJoined.admit(self.joined(account).await?, 1)?;
        self.add_member(key, account, now).await?;
        let epoch = self.number("SELECT epoch FROM groups WHERE id = $1", key.0).await?;
        let came = Change::MemberCame { group: group.clone(), user: user.clone(), epoch };
        self.change(&came, now).await
    }

    /// Deletes a row. Returns whether it existed, which decides races.
    async fn take(&mut self, sql: &'static str, group: GroupKey, account: AccountId) -> Result<bool> {
        let taken = sqlx::query(sql).bind(group.0).bind(account.0).execute(self.tx()).await?;
        Ok(taken.rows_affected() > 0)
    }

    pub(super) async fn take_request(&mut self, group: GroupKey, account: AccountId) -> Result<bool> {
        self.take("DELETE FROM requests WHERE group_id = $1 AND account = $2", group, account).await
    }

    /// Removes a member and voids the group's tickets.
    async fn take_member(
        &mut self,
        group: (GroupKey, &GroupId),
        member: (AccountId, &Username),
        now: SystemTime,
    ) -> Result<bool> {
        let sql = "DELETE FROM members WHERE group_id = $1 AND account = $2";
        if !self.take(sql, group.0, member.0).await? {
            return Ok(false);
        }
        let epoch = self.raise_epoch(group.0).await?;
        let gone = Change::MemberGone { group: group.1.clone(), user: member.1.clone(), epoch };
        self.change(&gone, now).await?;
        Ok(true)
    }

    async fn set_owner(&mut self, group: GroupKey, account: AccountId) -> Result<()> {
        let sql = "UPDATE groups SET owner = $1 WHERE id = $2";
        sqlx::query(sql).bind(account.0).bind(group.0).execute(self.tx()).await?;
        Ok(())
    }

    async fn delete_group(&mut self, key: GroupKey, group: &GroupId, origin: &Origin) -> Result<()> {
        let epoch = self.next_epoch().await?;
        // The cascade must not do this: the trigger that gives up the manifests must find the group's files.
        sqlx::query("DELETE FROM files WHERE group_id = $1").bind(key.0).execute(self.tx()).await?;
        sqlx::query("DELETE FROM groups WHERE id = $1").bind(key.0).execute(self.tx()).await?;
        self.change(&Change::GroupGone { group: group.clone(), epoch }, origin.at).await?;
        self.audit(Action::DeleteGroup, group.as_str(), origin).await?;
        self.store.sweep.notify_one();
        Ok(())
    }

    /// Ends the owner's membership. The longest-standing other member becomes the owner. Without one, the
    /// group is deleted.
    async fn leave_as_owner(&mut self, who: &Applicant, origin: &Origin) -> Result<()> {
        let sql = "SELECT a.id, a.username FROM members m JOIN accounts a ON a.id = m.account
                   WHERE m.group_id = $1 AND m.account <> $2 ORDER BY m.id LIMIT 1";
        let heir: Option<(i64, String)> =
            sqlx::query_as(sql).bind(who.key().0).bind(who.account().0).fetch_optional(self.tx()).await?;
        let Some((heir, name)) = heir else {
            return self.delete_group(who.key(), who.group(), origin).await;
        };
        self.set_owner(who.key(), AccountId(heir)).await?;
        self.take_member((who.key(), who.group()), (who.account(), who.user()), origin.at).await?;
        self.audit(Action::TransferOwnership, &about(who.group(), &stored(&name)?), origin).await
    }
}

#[async_trait]
impl Groups for Database {
    async fn place(&self, account: AccountId, group: &GroupId) -> Result<Option<Place>> {
        let sql = concat!("SELECT g.id, g.epoch, ", standing_of!("$1"), " FROM groups g WHERE g.name = $2");
        self.one(sql, (account.0, group.as_str()), |row| {
            Ok(Place {
                group: GroupKey(row.get(0)?),
                epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                standing: standing(row.get(2)?),
            })
        })
        .await
    }

    async fn epochs(&self, caller: &Caller) -> Result<Vec<(GroupId, u64)>> {
        let sql =
            "SELECT g.name, g.epoch FROM members m JOIN groups g ON g.id = m.group_id WHERE m.account = $1";
        let rows: Vec<(String, i64)> =
            sqlx::query_as(sql).bind(caller.account().0).fetch_all(self.reads()).await?;
        rows.into_iter().map(|(name, epoch)| Ok((stored(&name)?, epoch.cast_unsigned()))).collect()
    }

    async fn create_group(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        Quota::GroupsOwned.admit(write.owned(caller.account()).await?, 1)?;
        Quota::GroupsJoined.admit(write.joined(caller.account()).await?, 1)?;
        let epoch = write.next_epoch().await?;
        let sql = "INSERT INTO groups (name, folded, skeleton, owner, epoch, created_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
        let inserted: std::result::Result<(i64,), _> = sqlx::query_as(sql)
            .bind(group.as_str())
            .bind(fold(group.as_str()))
            .bind(skeleton(group.as_str()))
            .bind(caller.account().0)
            .bind(epoch.cast_signed())
            .bind(millis(origin.at))
            .fetch_one(write.tx())
            .await;
        let key = GroupKey(taken(inserted, Refusal::GroupTaken)?.0);
        write.add_member(key, caller.account(), origin.at).await?;
        write.audit(Action::CreateGroup, group.as_str(), origin).await?;
        write.commit().await
    }

    async fn groups(
        &self,
        caller: &Caller,
        mine: bool,
        after: Option<&GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupRow>> {
        let all = concat!(
            "SELECT g.name, a.username, g.members, ",
            standing_of!("$1"),
            " FROM groups g JOIN accounts a ON a.id = g.owner WHERE g.name > $2 ORDER BY g.name LIMIT $3"
        );
        let some = concat!(
            "SELECT g.name, a.username, g.members, ",
            standing_of!("$1"),
            " FROM groups g JOIN accounts a ON a.id = g.owner WHERE g.name > $2 AND g.id IN",
            " (SELECT group_id FROM members WHERE account = $1 UNION",
            " SELECT group_id FROM requests WHERE account = $1) ORDER BY g.name LIMIT $3"
        );
        let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(if mine { some } else { all })
            .bind(caller.account().0)
            .bind(after.map_or("", GroupId::as_str))
            .bind(i64::from(limit))
            .fetch_all(self.reads())
            .await?;
        let row = |(name, owner, members, number): (String, String, i64, i64)| {
            let members = u32::try_from(members).unwrap_or(u32::MAX);
            Ok(GroupRow {
                group: stored(&name)?,
                owner: stored(&owner)?,
                members,
                standing: standing(number),
            })
        };
        rows.into_iter().map(row).collect()
    }

    async fn ask(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let row: Option<(i64,)> = sqlx::query_as("SELECT id FROM groups WHERE name = $1")
            .bind(group.as_str())
            .fetch_optional(write.tx())
            .await?;
        let key = GroupKey(row.ok_or(Refusal::GroupNotFound)?.0);
        match write.standing(key, caller.account()).await? {
            Standing::None => {}
            Standing::Requested => return Err(Refusal::AlreadyAsked.into()),
            Standing::Reader | Standing::Member | Standing::Manager | Standing::Owner => {
                return Err(Refusal::AlreadyAMember.into());
            }
        }
        let of_user = "SELECT count(*) FROM requests WHERE account = $1";
        Quota::RequestsOfUser.admit(write.number(of_user, caller.account().0).await?, 1)?;
        let of_group = "SELECT count(*) FROM requests WHERE group_id = $1";
        Quota::RequestsOnGroup.admit(write.number(of_group, key.0).await?, 1)?;
        let sql = "INSERT INTO requests (group_id, account, since) VALUES ($1, $2, $3)";
        let inserted = sqlx::query(sql)
            .bind(key.0)
            .bind(caller.account().0)
            .bind(millis(origin.at))
            .execute(write.tx())
            .await;
        taken(inserted, Refusal::AlreadyAsked)?;
        write.audit(Action::JoinGroup, group.as_str(), origin).await?;
        write.commit().await
    }

    async fn leave(&self, who: &Applicant, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        match write.standing(who.key(), who.account()).await? {
            Standing::None => return Err(Refusal::NotAMember.into()),
            Standing::Requested => {
                write.take_request(who.key(), who.account()).await?;
                write.audit(Action::WithdrawRequest, who.group().as_str(), origin).await?;
                return write.commit().await;
            }
            Standing::Reader | Standing::Member | Standing::Manager => {
                write.take_member((who.key(), who.group()), (who.account(), who.user()), origin.at).await?;
            }
            Standing::Owner => write.leave_as_owner(who, origin).await?,
        }
        write.audit(Action::LeaveGroup, who.group().as_str(), origin).await?;
        write.commit().await
    }

    async fn requests(&self, owner: &Management, after: i64, limit: u32) -> Result<Vec<PersonRow>> {
        let sql = "SELECT r.id, a.username, CAST(1 AS BIGINT), r.since FROM requests r JOIN accounts a ON a.id = r.account
                   WHERE r.group_id = $1 AND r.id > $2 ORDER BY r.id LIMIT $3";
        self.people(sql, owner.key(), after, limit).await
    }

    async fn accept(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_manager(owner).await?;
        let account = write.account_named(user).await?.ok_or(Refusal::NoSuchRequest)?;
        if !write.take_request(owner.key(), account).await? {
            // The response to an earlier call may have been lost. The requested membership exists.
            let is_member = write.standing(owner.key(), account).await? >= Standing::Reader;
            return if is_member { Ok(()) } else { Err(Refusal::NoSuchRequest.into()) };
        }
        let group = (owner.key(), owner.group());
        write.admit_member(group, (account, user), origin.at).await?;
        write.audit(Action::AcceptRequest, &about(owner.group(), user), origin).await?;
        write.commit().await
    }

    async fn reject(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_manager(owner).await?;
        let account = write.account_named(user).await?.ok_or(Refusal::NoSuchRequest)?;
        if !write.take_request(owner.key(), account).await? {
            return Err(Refusal::NoSuchRequest.into());
        }
        write.audit(Action::RejectRequest, &about(owner.group(), user), origin).await?;
        write.commit().await
    }

    async fn members(&self, member: &Membership, after: i64, limit: u32) -> Result<Vec<PersonRow>> {
        let sql = "SELECT m.id, a.username, CAST(CASE WHEN g.owner = m.account THEN 5 ELSE m.role END AS BIGINT), m.since
                   FROM members m JOIN accounts a ON a.id = m.account JOIN groups g ON g.id = m.group_id
                   WHERE m.group_id = $1 AND m.id > $2 ORDER BY m.id LIMIT $3";
        self.people(sql, member.key(), after, limit).await
    }

    async fn remove_member(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        let is_owner = write.still_manager(owner).await?;
        let account = write.account_named(user).await?.ok_or(Refusal::MemberNotFound)?;
        match write.standing(owner.key(), account).await? {
            Standing::Owner => return Err(Refusal::TargetIsOwner.into()),
            Standing::Manager if !is_owner => return Err(Refusal::NotTheOwner.into()),
            _ => {}
        }
        if !write.take_member((owner.key(), owner.group()), (account, user), origin.at).await? {
            return Err(Refusal::MemberNotFound.into());
        }
        write.audit(Action::RemoveMember, &about(owner.group(), user), origin).await?;
        write.commit().await
    }

    async fn set_role(&self, owner: &Ownership, user: &Username, role: Role, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_owner(owner).await?;
        let account = write.account_named(user).await?.ok_or(Refusal::MemberNotFound)?;
        if write.standing(owner.key(), account).await? == Standing::Owner {
            return Err(Refusal::TargetIsOwner.into());
        }
        let sql = "UPDATE members SET role = $1 WHERE group_id = $2 AND account = $3";
        let set = sqlx::query(sql)
            .bind(role_number(role))
            .bind(owner.key().0)
            .bind(account.0)
            .execute(write.tx())
            .await?;
        if set.rows_affected() == 0 {
            return Err(Refusal::MemberNotFound.into());
        }
        write.audit(Action::SetRole, &about(owner.group(), user), origin).await?;
        write.commit().await
    }

    async fn transfer(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_owner(owner).await?;
        let account = write.account_named(user).await?.ok_or(Refusal::TargetNotAMember)?;
        match write.standing(owner.key(), account).await? {
            Standing::Owner => return write.commit().await,
            Standing::Reader | Standing::Member | Standing::Manager => {}
            Standing::None | Standing::Requested => return Err(Refusal::TargetNotAMember.into()),
        }
        Quota::GroupsOwned.admit(write.owned(account).await?, 1)?;
        write.set_owner(owner.key(), account).await?;
        write.audit(Action::TransferOwnership, &about(owner.group(), user), origin).await?;
        write.commit().await
    }

    async fn delete_group(&self, owner: &Ownership, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_owner(owner).await?;
        write.delete_group(owner.key(), owner.group(), origin).await?;
        write.commit().await
    }
}

impl Database {
    async fn people(
        &self,
        sql: &'static str,
        group: GroupKey,
        after: i64,
        limit: u32,
    ) -> Result<Vec<PersonRow>> {
        let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(sql)
            .bind(group.0)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.reads())
            .await?;
        let row = |(cursor, user, number, since): (i64, String, i64, i64)| {
            Ok(PersonRow { cursor, user: stored(&user)?, standing: standing(number), since: time(since) })
        };
        rows.into_iter().map(row).collect()
    }
}
