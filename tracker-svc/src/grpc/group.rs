//! GroupService.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use proto::{
    convert,
    domain::{
        GroupId, Username,
        invite::{HostPort, InviteSecret, MAX_TRACKERS},
    },
    pb,
};
use tonic::{Request, Response, Status, async_trait};

use super::{
    gate::{Gate, caller, origin, unless_done},
    page,
    rights::Call,
};
use crate::{
    domain::{
        Action, Applicant, Management, Membership, Origin, Ownership, Standing,
        access::{Proof, Role},
        audit,
        invite::{InviteHash, NewInvite},
        operator::GroupCreators,
    },
    error::TrackerError,
    store::{GroupRow, InviteKey, InviteRow, PersonRow, Store},
};

/// GroupService over a store.
pub struct GroupService {
    store: Arc<dyn Store>,
    gate: Gate,
    reachable: Arc<Reachable>,
    creators: GroupCreators,
}

/// Where other hosts reach this tracker.
#[derive(Debug, Default)]
pub struct Reachable {
    /// The names that the operator gave the certificate.
    names: Vec<String>,
    /// The address that the tracker listens at, once it is bound.
    listen: OnceLock<SocketAddr>,
}

impl Reachable {
    /// A tracker whose certificate has these names, among others.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, listen: OnceLock::new() }
    }

    /// Sets the address that the tracker listens at.
    pub(crate) fn bound(&self, address: SocketAddr) {
        // A tracker is bound once.
        let _ = self.listen.set(address);
    }

    /// `HOST:PORT` of each name. Empty if only this host reaches the tracker.
    fn addresses(&self) -> Vec<String> {
        let Some(listen) = self.listen.get().filter(|listen| !listen.ip().is_loopback()) else {
            return Vec::new();
        };
        let is_of_this_host = |name: &str| {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        };
        let all = self.names.iter().filter(|name| !is_of_this_host(name));
        all.filter_map(|name| HostPort::new(name, listen.port()).ok())
            .take(MAX_TRACKERS)
            .map(|address| address.to_string())
            .collect()
    }
}

impl GroupService {
    /// Makes the service for the groups of this store.
    pub fn new(store: Arc<dyn Store>, reachable: Arc<Reachable>, creators: GroupCreators) -> Self {
        Self { gate: Gate::new(Arc::clone(&store)), store, reachable, creators }
    }

    /// Parses the group of a request, and admits the caller to it.
    async fn enter<P: Proof, T>(
        &self,
        request: &Request<T>,
        group: &str,
    ) -> Result<(P, Origin), TrackerError> {
        let (call, origin, group) = named(request, group)?;
        Ok((self.gate.enter(&call, &group).await?, origin))
    }

    /// Applies [`unless_done`] to a change of a group, or of a user's place in it.
    async fn unless_done(
        &self,
        actions: &[Action],
        group: &GroupId,
        user: Option<&Username>,
        origin: &Origin,
        outcome: Result<(), TrackerError>,
    ) -> Result<(), TrackerError> {
        let object = user.map_or_else(|| group.to_string(), |user| audit::about(group, user));
        unless_done(&*self.store, actions, &object, origin, outcome).await
    }
}

/// The caller, the origin and the group of a request.
fn named<T>(request: &Request<T>, group: &str) -> Result<(Arc<Call>, Origin, GroupId), TrackerError> {
    Ok((caller(request)?, origin(request)?, convert::group_id(group)?))
}

fn standing(standing: Standing) -> i32 {
    let standing = match standing {
        Standing::None => pb::Standing::None,
        Standing::Requested => pb::Standing::Requested,
        Standing::Reader => pb::Standing::Reader,
        Standing::Member => pb::Standing::Member,
        Standing::Manager => pb::Standing::Manager,
        Standing::Owner => pb::Standing::Owner,
    };
    standing.into()
}

fn group(row: &GroupRow) -> pb::Group {
    pb::Group {
        group_id: row.group.to_string(),
        owner: row.owner.to_string(),
        members: row.members,
        standing: standing(row.standing),
    }
}

fn member(row: &PersonRow) -> pb::Member {
    pb::Member { username: row.user.to_string(), role: standing(row.standing), since: Some(row.since.into()) }
}

fn join_request(row: &PersonRow) -> pb::JoinRequest {
    pb::JoinRequest { username: row.user.to_string(), since: Some(row.since.into()) }
}

fn invite(row: &InviteRow) -> pb::Invite {
    pb::Invite {
        invite_id: row.id.to_string(),
        username: row.by.to_string(),
        name: row.file.as_ref().map(ToString::to_string).unwrap_or_default(),
        uses: row.uses,
        uses_left: row.uses_left,
        since: Some(row.since.into()),
        expires_at: Some(row.expires.into()),
    }
}

/// What somebody shows of an invitation, as the store knows it.
///
/// # Errors
/// Fails if it is malformed.
pub(super) fn invite_key(key: Option<&pb::InviteKey>) -> Result<InviteKey, TrackerError> {
    let (group, secret) = convert::invite_key(key)?;
    Ok(InviteKey { group, hash: InviteHash::of(&secret) })
}

/// The invitation that a request asks for, and its secret.
fn new_invite(
    asked: &pb::CreateInviteRequest,
    now: SystemTime,
) -> Result<(InviteSecret, NewInvite), TrackerError> {
    let lifetime = match asked.lifetime {
        Some(lifetime) => {
            let positive = Duration::try_from(lifetime);
            Some(positive.map_err(|_| TrackerError::Invalid("lifetime is not a positive duration"))?)
        }
        None => None,
    };
    let name = Some(asked.name.as_str()).filter(|name| !name.is_empty());
    let file = name.map(convert::file_name).transpose()?;
    let secret = InviteSecret::from(rand::random::<[u8; InviteSecret::BYTES]>());
    let new = NewInvite::new(&secret, asked.uses, lifetime, file, now)?;
    Ok((secret, new))
}

fn username(text: &str) -> Result<Username, TrackerError> {
    Ok(convert::username(text)?)
}

#[async_trait]
impl pb::group_service_server::GroupService for GroupService {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::CreateGroupResponse>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let group = convert::new_group_id(&request.get_ref().group_id)?;
        let made = async {
            self.creators.admit(caller.user())?;
            Ok(self.store.create_group(&caller, &group, &origin).await?)
        };
        self.unless_done(&[Action::CreateGroup], &group, None, &origin, made.await).await?;
        Ok(Response::new(pb::CreateGroupResponse {}))
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let (caller, asked) = (caller(&request)?, request.get_ref());
        let (size, after) = (page::size(asked.page_size), page::cursor::<GroupId>(&asked.page_token)?);
        let rows = self.store.groups(&caller, asked.mine, after.as_ref(), size).await?;
        let next_page_token = page::next(rows.len(), size, rows.last().map(|row| &row.group));
        Ok(Response::new(pb::ListGroupsResponse {
            groups: rows.iter().filter(|row| caller.covers(&row.group)).map(group).collect(),
            next_page_token,
        }))
    }

    async fn join_group(
        &self,
        request: Request<pb::JoinGroupRequest>,
    ) -> Result<Response<pb::JoinGroupResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let asked = self.store.ask(&caller, &group, &origin).await;
        self.unless_done(&[Action::JoinGroup], &group, None, &origin, asked.map_err(Into::into)).await?;
        Ok(Response::new(pb::JoinGroupResponse {}))
    }

    async fn leave_group(
        &self,
        request: Request<pb::LeaveGroupRequest>,
    ) -> Result<Response<pb::LeaveGroupResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let left = async {
            let who: Applicant = self.gate.enter(&caller, &group).await?;
            Ok(self.store.leave(&who, &origin).await?)
        };
        let actions = [Action::LeaveGroup, Action::WithdrawRequest];
        self.unless_done(&actions, &group, None, &origin, left.await).await?;
        Ok(Response::new(pb::LeaveGroupResponse {}))
    }

    async fn list_join_requests(
        &self,
        request: Request<pb::ListJoinRequestsRequest>,
    ) -> Result<Response<pb::ListJoinRequestsResponse>, Status> {
        let asked = request.get_ref();
        let (owner, _) = self.enter::<Management, _>(&request, &asked.group_id).await?;
        let (size, after) = (page::size(asked.page_size), page::cursor(&asked.page_token)?);
        let rows = self.store.requests(&owner, after.unwrap_or(0), size).await?;
        let next_page_token = page::next(rows.len(), size, rows.last().map(|row| row.cursor));
        let requests = rows.iter().map(join_request).collect();
        Ok(Response::new(pb::ListJoinRequestsResponse { requests, next_page_token }))
    }

    async fn accept_join_request(
        &self,
        request: Request<pb::AcceptJoinRequestRequest>,
    ) -> Result<Response<pb::AcceptJoinRequestResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (owner, origin) = self.enter::<Management, _>(&request, &request.get_ref().group_id).await?;
        self.store.accept(&owner, &user, &origin).await?;
        Ok(Response::new(pb::AcceptJoinRequestResponse {}))
    }

    async fn reject_join_request(
        &self,
        request: Request<pb::RejectJoinRequestRequest>,
    ) -> Result<Response<pb::RejectJoinRequestResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let rejected = async {
            let owner: Management = self.gate.enter(&caller, &group).await?;
            Ok(self.store.reject(&owner, &user, &origin).await?)
        };
        self.unless_done(&[Action::RejectRequest], &group, Some(&user), &origin, rejected.await).await?;
        Ok(Response::new(pb::RejectJoinRequestResponse {}))
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let asked = request.get_ref();
        let (entered, _) = self.enter::<Membership, _>(&request, &asked.group_id).await?;
        let (size, after) = (page::size(asked.page_size), page::cursor(&asked.page_token)?);
        let rows = self.store.members(&entered, after.unwrap_or(0), size).await?;
        let next_page_token = page::next(rows.len(), size, rows.last().map(|row| row.cursor));
        Ok(Response::new(pb::ListMembersResponse {
            members: rows.iter().map(member).collect(),
            next_page_token,
        }))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Result<Response<pb::RemoveMemberResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let removed = async {
            let owner: Management = self.gate.enter(&caller, &group).await?;
            Ok(self.store.remove_member(&owner, &user, &origin).await?)
        };
        self.unless_done(&[Action::RemoveMember], &group, Some(&user), &origin, removed.await).await?;
        Ok(Response::new(pb::RemoveMemberResponse {}))
    }

    async fn transfer_ownership(
        &self,
        request: Request<pb::TransferOwnershipRequest>,
    ) -> Result<Response<pb::TransferOwnershipResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let transferred = async {
            let owner: Ownership = self.gate.enter(&caller, &group).await?;
            Ok(self.store.transfer(&owner, &user, &origin).await?)
        };
        self.unless_done(&[Action::TransferOwnership], &group, Some(&user), &origin, transferred.await)
            .await?;
        Ok(Response::new(pb::TransferOwnershipResponse {}))
    }

    async fn set_role(
        &self,
        request: Request<pb::SetRoleRequest>,
    ) -> Result<Response<pb::SetRoleResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let user = username(&request.get_ref().username)?;
        let role = match request.get_ref().role() {
            pb::Standing::Reader => Role::Reader,
            pb::Standing::Member => Role::Member,
            pb::Standing::Manager => Role::Manager,
            _ => return Err(TrackerError::Invalid("a role is reader, member or manager").into()),
        };
        let set = async {
            let owner: Ownership = self.gate.enter(&caller, &group).await?;
            Ok(self.store.set_role(&owner, &user, role, &origin).await?)
        };
        self.unless_done(&[Action::SetRole], &group, Some(&user), &origin, set.await).await?;
        Ok(Response::new(pb::SetRoleResponse {}))
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        let deleted = async {
            let owner: Ownership = self.gate.enter(&caller, &group).await?;
            Ok(self.store.delete_group(&owner, &origin).await?)
        };
        self.unless_done(&[Action::DeleteGroup], &group, None, &origin, deleted.await).await?;
        Ok(Response::new(pb::DeleteGroupResponse {}))
    }

    async fn create_invite(
        &self,
        request: Request<pb::CreateInviteRequest>,
    ) -> Result<Response<pb::CreateInviteResponse>, Status> {
        let asked = request.get_ref();
        let (owner, origin) = self.enter::<Management, _>(&request, &asked.group_id).await?;
        let (secret, new) = new_invite(asked, origin.at)?;
        let id = self.store.create_invite(&owner, &new, &origin).await?;
        let row = InviteRow {
            id,
            by: owner.user().clone(),
            file: new.file,
            uses: new.uses,
            uses_left: new.uses,
            since: origin.at,
            expires: new.expires,
        };
        Ok(Response::new(pb::CreateInviteResponse {
            invite: Some(invite(&row)),
            secret: secret.text(),
            tracker_addresses: self.reachable.addresses(),
        }))
    }

    async fn list_invites(
        &self,
        request: Request<pb::ListInvitesRequest>,
    ) -> Result<Response<pb::ListInvitesResponse>, Status> {
        let asked = request.get_ref();
        let (owner, origin) = self.enter::<Management, _>(&request, &asked.group_id).await?;
        let (size, after) = (page::size(asked.page_size), page::cursor(&asked.page_token)?);
        let rows = self.store.invites(&owner, after.unwrap_or(0), size, origin.at).await?;
        let next_page_token = page::next(rows.len(), size, rows.last().map(|row| row.id));
        let invites = rows.iter().map(invite).collect();
        Ok(Response::new(pb::ListInvitesResponse { invites, next_page_token }))
    }

    async fn revoke_invite(
        &self,
        request: Request<pb::RevokeInviteRequest>,
    ) -> Result<Response<pb::RevokeInviteResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        // Text that is no id belongs to no invitation.
        let id = request.get_ref().invite_id.parse().unwrap_or(0);
        let revoked = async {
            let owner: Management = self.gate.enter(&caller, &group).await?;
            Ok(self.store.revoke_invite(&owner, id, &origin).await?)
        };
        let object = audit::about_invite(&group, id);
        unless_done(&*self.store, &[Action::RevokeInvite], &object, &origin, revoked.await).await?;
        Ok(Response::new(pb::RevokeInviteResponse {}))
    }

    async fn join_by_invite(
        &self,
        request: Request<pb::JoinByInviteRequest>,
    ) -> Result<Response<pb::JoinByInviteResponse>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let invite = invite_key(request.get_ref().invite.as_ref())?;
        self.store.join_by_invite(&caller, &invite, &origin).await?;
        Ok(Response::new(pb::JoinByInviteResponse {}))
    }
}
