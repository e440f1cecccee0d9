//! SwarmService: tickets, sources, and the way into announce streams.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::{
    convert::{self, found::Found},
    domain::{FileId, GroupId, PeerId, limits::MAX_TICKETS_A_CALL},
    pb,
    reason::Reason,
    ticket::Claims,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    announce::{Announce, NextMessages},
    gate::{Gate, caller, origin},
};
use crate::{
    domain::{Action, Caller, Membership, Refusal, swarm::Source},
    error::TrackerError,
    hub::Hub,
    keys::TicketKeys,
    store::Store,
};

/// SwarmService over a store and the swarms. Cheap to clone.
#[derive(Clone)]
pub struct SwarmService {
    pub(super) store: Arc<dyn Store>,
    pub(super) gate: Gate,
    pub(super) hub: Arc<Hub>,
    pub(super) keys: Arc<TicketKeys>,
    ticket_life: Duration,
}

impl SwarmService {
    /// The service; its tickets count for `ticket_life`.
    pub fn new(store: Arc<dyn Store>, hub: Arc<Hub>, keys: Arc<TicketKeys>, ticket_life: Duration) -> Self {
        Self { gate: Gate::new(Arc::clone(&store)), store, hub, keys, ticket_life }
    }

    /// The peer of that id, which must be the caller's own.
    pub(super) async fn own_peer(&self, caller: &Caller, peer: &str) -> Result<PeerId, TrackerError> {
        let peer = convert::peer_id(peer)?;
        match self.store.peer_owner(peer).await? {
            Some(owner) if owner == *caller.user() => Ok(peer),
            _ => Err(Refusal::NotYourPeer.into()),
        }
    }

    async fn tickets(
        &self,
        caller: &Caller,
        request: &pb::IssueTicketsRequest,
    ) -> Result<pb::IssueTicketsResponse, TrackerError> {
        let files = distinct(&request.files)?;
        let peer = self.own_peer(caller, &request.peer_id).await?;
        let now = since_1970(SystemTime::now());
        let (signer, life) = (self.keys.signer(now), self.ticket_life.as_secs());
        let mut groups: HashMap<GroupId, Option<Membership>> = HashMap::new();
        let mut answer = pb::IssueTicketsResponse::default();
        for (group, file) in files {
            let asked = Some(convert::to_file_ref(&group, file));
            let mut refuse = |reason: Reason| {
                let reason = reason.as_str().to_owned();
                answer.refusals.push(pb::TicketRefusal { file: asked.clone(), reason });
            };
            if !groups.contains_key(&group) {
                let member = member_or_not(self.gate.enter(caller, &group).await)?;
                groups.insert(group.clone(), member);
            }
            let Some(Some(member)) = groups.get(&group) else {
                refuse(Reason::NotAMember);
                continue;
            };
            let Some(row) = self.store.file_by_id(member, file).await? else {
                refuse(Reason::FileNotFound);
                continue;
            };
            let ticket = signer.sign(&Claims {
                user: caller.user().clone(),
                group,
                file,
                root: row.header.blake3,
                peer,
                epoch: member.epoch(),
                issued: now,
                not_before: now,
                expires: now + life,
                id: rand::random(),
            });
            let expires_at = Some((UNIX_EPOCH + Duration::from_secs(now + life)).into());
            answer.tickets.push(pb::Ticket { file: asked, ticket, expires_at });
        }
        Ok(answer)
    }
}

/// The files asked for: some, each once, not too many.
fn distinct(files: &[pb::FileRef]) -> Result<Vec<(GroupId, FileId)>, TrackerError> {
    if !(1..=MAX_TICKETS_A_CALL).contains(&files.len()) {
        return Err(TrackerError::Invalid("tickets are for 1 to 64 files"));
    }
    let files: Vec<_> = files.iter().map(|file| convert::file_ref(Some(file))).collect::<Result<_, _>>()?;
    if files.iter().collect::<HashSet<_>>().len() < files.len() {
        return Err(TrackerError::Invalid("each file once"));
    }
    Ok(files)
}

/// A membership, or that there is none; other errors stay errors.
pub(super) fn member_or_not(
    entered: Result<Membership, TrackerError>,
) -> Result<Option<Membership>, TrackerError> {
    match entered {
        Ok(member) => Ok(Some(member)),
        Err(TrackerError::Refused(Refusal::NotAMember)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A source for the wire.
pub(super) fn found(source: &Source) -> Found<'_> {
    Found {
        id: source.id,
        user: &source.user,
        address: &source.address,
        pieces: source.pieces,
        load: source.load,
    }
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[async_trait]
impl pb::swarm_service_server::SwarmService for SwarmService {
    type AnnounceStream = NextMessages;

    async fn issue_tickets(
        &self,
        request: Request<pb::IssueTicketsRequest>,
    ) -> Result<Response<pb::IssueTicketsResponse>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        let request = request.into_inner();
        let answer = self.tickets(&caller, &request).await?;
        if answer.tickets.is_empty() {
            // A single answer for all that is not there, whether the group or the file: nobody learns what exists.
            let outsider = |refusal: &pb::TicketRefusal| refusal.reason == Reason::NotAMember.as_str();
            let is_outsider = answer.refusals.iter().any(outsider);
            let refusal = if is_outsider { Refusal::NotAMember } else { Refusal::FileNotFound };
            return Err(TrackerError::from(refusal).into());
        }
        let object = format!("{} files for {}", answer.tickets.len(), request.peer_id);
        let recorded = self.store.record(Action::IssueTickets, &object, &origin).await;
        recorded.map_err(TrackerError::from)?;
        Ok(Response::new(answer))
    }

    async fn announce(
        &self,
        request: Request<Streaming<pb::AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        // Two answers wait at most; what comes later is worked out when there is room.
        let (sender, receiver) = mpsc::channel(2);
        let stream = Announce::new(self.clone(), caller, origin, sender);
        self.hub.tasks.spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn find_peers(
        &self,
        request: Request<pb::FindPeersRequest>,
    ) -> Result<Response<pb::FindPeersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let group = convert::group_id(&request.group_id)?;
        let member: Membership = self.gate.enter(&caller, &group).await?;
        let name = convert::file_name(&request.name)?;
        let file = self.store.file_id(&member, &name).await.map_err(TrackerError::from)?;
        let file = file.ok_or(TrackerError::Refused(Refusal::FileNotFound))?;
        Ok(Response::new(pb::FindPeersResponse::new(file, self.hub.find(file).iter().map(found))))
    }
}
