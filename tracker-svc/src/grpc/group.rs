//! GroupService.

use std::sync::Arc;

use proto::{
    convert,
    domain::{GroupId, Username},
    pb,
};
use tonic::{Request, Response, Status, async_trait};

use super::{
    gate::{Gate, caller, origin},
    page,
};
use crate::{
    domain::{Applicant, Caller, Membership, Origin, Ownership, Standing, access::Proof},
    error::TrackerError,
    store::{GroupRow, PersonRow, Store},
};

/// GroupService over a store.
pub struct GroupService {
    store: Arc<dyn Store>,
    gate: Gate,
}

impl GroupService {
    /// The service of that store's groups.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { gate: Gate::new(Arc::clone(&store)), store }
    }

    /// Reads the group of a request and admits its caller there.
    async fn enter<P: Proof, T>(
        &self,
        request: &Request<T>,
        group: &str,
    ) -> Result<(P, Origin), TrackerError> {
        let group = convert::group_id(group)?;
        Ok((self.gate.enter(&caller(request)?, &group).await?, origin(request)?))
    }
}

/// Who calls, from where, and the group that is meant.
fn named<T>(request: &Request<T>, group: &str) -> Result<(Caller, Origin, GroupId), TrackerError> {
    Ok((caller(request)?, origin(request)?, convert::group_id(group)?))
}

fn standing(standing: Standing) -> i32 {
    let standing = match standing {
        Standing::None => pb::Standing::None,
        Standing::Requested => pb::Standing::Requested,
        Standing::Member => pb::Standing::Member,
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

fn username(text: &str) -> Result<Username, TrackerError> {
    Ok(convert::username(text)?)
}

#[async_trait]
impl pb::group_service_server::GroupService for GroupService {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::CreateGroupResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        self.store.create_group(&caller, &group, &origin).await?;
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
            groups: rows.iter().map(group).collect(),
            next_page_token,
        }))
    }

    async fn join_group(
        &self,
        request: Request<pb::JoinGroupRequest>,
    ) -> Result<Response<pb::JoinGroupResponse>, Status> {
        let (caller, origin, group) = named(&request, &request.get_ref().group_id)?;
        self.store.ask(&caller, &group, &origin).await?;
        Ok(Response::new(pb::JoinGroupResponse {}))
    }

    async fn leave_group(
        &self,
        request: Request<pb::LeaveGroupRequest>,
    ) -> Result<Response<pb::LeaveGroupResponse>, Status> {
        let (who, origin) = self.enter::<Applicant, _>(&request, &request.get_ref().group_id).await?;
        self.store.leave(&who, &origin).await?;
        Ok(Response::new(pb::LeaveGroupResponse {}))
    }

    async fn list_join_requests(
        &self,
        request: Request<pb::ListJoinRequestsRequest>,
    ) -> Result<Response<pb::ListJoinRequestsResponse>, Status> {
        let asked = request.get_ref();
        let (owner, _) = self.enter::<Ownership, _>(&request, &asked.group_id).await?;
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
        let (owner, origin) = self.enter::<Ownership, _>(&request, &request.get_ref().group_id).await?;
        self.store.accept(&owner, &user, &origin).await?;
        Ok(Response::new(pb::AcceptJoinRequestResponse {}))
    }

    async fn reject_join_request(
        &self,
        request: Request<pb::RejectJoinRequestRequest>,
    ) -> Result<Response<pb::RejectJoinRequestResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (owner, origin) = self.enter::<Ownership, _>(&request, &request.get_ref().group_id).await?;
        self.store.reject(&owner, &user, &origin).await?;
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
        let (owner, origin) = self.enter::<Ownership, _>(&request, &request.get_ref().group_id).await?;
        self.store.remove_member(&owner, &user, &origin).await?;
        Ok(Response::new(pb::RemoveMemberResponse {}))
    }

    async fn transfer_ownership(
        &self,
        request: Request<pb::TransferOwnershipRequest>,
    ) -> Result<Response<pb::TransferOwnershipResponse>, Status> {
        let user = username(&request.get_ref().username)?;
        let (owner, origin) = self.enter::<Ownership, _>(&request, &request.get_ref().group_id).await?;
        self.store.transfer(&owner, &user, &origin).await?;
        Ok(Response::new(pb::TransferOwnershipResponse {}))
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (owner, origin) = self.enter::<Ownership, _>(&request, &request.get_ref().group_id).await?;
        self.store.delete_group(&owner, &origin).await?;
        Ok(Response::new(pb::DeleteGroupResponse {}))
    }
}
