//! SwarmService: tickets, sources, and the start of announce streams.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::{
    convert,
    domain::{FileId, GroupId, limits::MAX_TICKETS_A_CALL},
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
    page,
    swarm_state::{SwarmState, found, without_addresses},
};
use crate::{
    domain::{Action, Membership, Refusal},
    error::TrackerError,
    hub::{Hub, observed},
    keys::TicketKeys,
    store::{Asked, Store},
};

/// SwarmService over a store and the swarms. Cheap to clone.
#[derive(Clone)]
pub struct SwarmService {
    state: SwarmState,
    ticket_life: Duration,
}

impl SwarmService {
    /// Makes the service. Its tickets are valid for `ticket_life`.
    pub fn new(store: Arc<dyn Store>, hub: Arc<Hub>, keys: Arc<TicketKeys>, ticket_life: Duration) -> Self {
        Self { state: SwarmState { gate: Gate::new(Arc::clone(&store)), store, hub, keys }, ticket_life }
    }

    async fn tickets(
        &self,
        request: &Request<pb::IssueTicketsRequest>,
    ) -> Result<pb::IssueTicketsResponse, TrackerError> {
        let files = distinct(&request.get_ref().files)?;
        let (first_group, first_file) = &files[0];
        let asked = Asked::File(*first_file);
        let (caller, first) = self.state.gate.admit::<Membership, _>(request, first_group, asked).await?;
        let (first_member, mut first_row) = first.map_or((None, None), |(member, row)| (Some(member), row));
        let peer = self.state.own_peer(&caller, &request.get_ref().peer_id).await?;
        let now = since_1970(self.state.hub.clock());
        let (signer, life) = (self.state.keys.signer(now), self.ticket_life.as_secs());
        let mut groups = HashMap::from([(first_group.clone(), first_member)]);
        let mut answer = pb::IssueTicketsResponse::default();
        for (number, (group, file)) in files.iter().enumerate() {
            let (group, file) = (group.clone(), *file);
            let asked = Some(convert::to_file_ref(&group, file));
            let mut refuse = |reason: Reason| {
                let reason = reason.as_str().to_owned();
                answer.refusals.push(pb::TicketRefusal { file: asked.clone(), reason });
            };
            if !groups.contains_key(&group) {
                let member = self.state.gate.member(&caller, &group).await?;
                groups.insert(group.clone(), member);
            }
            let Some(Some(member)) = groups.get(&group) else {
                refuse(Reason::NotAMember);
                continue;
            };
            let row = match number {
                0 => first_row.take(),
                _ => self.state.store.file_by_id(member, file).await?,
            };
            let Some(row) = row else {
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

/// Checks the requested files: at least one, each once, not too many.
fn distinct(files: &[pb::FileRef]) -> Result<Vec<(GroupId, FileId)>, TrackerError> {
    if !(1..=MAX_TICKETS_A_CALL).contains(&files.len()) {
        return Err(TrackerError::Invalid("a request must name 1 to 64 files"));
    }
    let files: Vec<_> = files.iter().map(|file| convert::file_ref(Some(file))).collect::<Result<_, _>>()?;
    if files.iter().collect::<HashSet<_>>().len() < files.len() {
        return Err(TrackerError::Invalid("each file may be named only once"));
    }
    Ok(files)
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
        let origin = origin(&request)?;
        let answer = self.tickets(&request).await?;
        if answer.tickets.is_empty() {
            // The status is the same for a missing group and a missing file, so that a non-member cannot
            // learn what exists.
            let outsider = |refusal: &pb::TicketRefusal| refusal.reason == Reason::NotAMember.as_str();
            let is_outsider = answer.refusals.iter().any(outsider);
            let refusal = if is_outsider { Refusal::NotAMember } else { Refusal::FileNotFound };
            return Err(TrackerError::from(refusal).into());
        }
        let object = format!("{} files for {}", answer.tickets.len(), request.get_ref().peer_id);
        let recorded = self.state.store.record(Action::IssueTickets, &object, &origin).await;
        recorded.map_err(TrackerError::from)?;
        Ok(Response::new(answer))
    }

    async fn announce(
        &self,
        request: Request<Streaming<pb::AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let (caller, origin) = (caller(&request)?, origin(&request)?);
        // At most two responses wait. Later ones are computed when there is room.
        let (sender, receiver) = mpsc::channel(2);
        let stream = Announce::new(self.state.clone(), caller, origin, sender);
        self.state.hub.tasks.spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn find_peers(
        &self,
        request: Request<pb::FindPeersRequest>,
    ) -> Result<Response<pb::FindPeersResponse>, Status> {
        let origin = origin(&request)?;
        let group = convert::group_id(&request.get_ref().group_id)?;
        let name = convert::file_name(&request.get_ref().name)?;
        let (_, admission) =
            self.state.gate.admit::<Membership, _>(&request, &group, Asked::Named(&name)).await?;
        let (_, file) = admission.map_err(TrackerError::from)?;
        let file = file.ok_or(TrackerError::Refused(Refusal::FileNotFound))?.id;
        let request = request.into_inner();
        if request.everyone {
            let (size, after) = (page::size(request.page_size), page::cursor(&request.page_token)?);
            let everyone = self.state.hub.everyone(file, after.as_ref(), size as usize);
            let next_page_token = page::next(everyone.len(), size, everyone.last().map(|peer| peer.id));
            let mut tokens = Vec::new();
            for peer in &everyone {
                let owner = self.state.store.peer_owner(peer.id).await.map_err(TrackerError::from)?;
                let token = owner.and_then(|owner| owner.token);
                tokens.push(token.map(|token| token.to_string()).unwrap_or_default());
            }
            let described = everyone.iter().zip(&tokens).map(|(peer, token)| without_addresses(peer, token));
            return Ok(Response::new(pb::FindPeersResponse {
                next_page_token,
                ..pb::FindPeersResponse::new(file, described)
            }));
        }
        let (sources, observed) = (self.state.hub.find(file), observed(origin.ip));
        let found = sources.iter().map(|source| found(source, observed));
        Ok(Response::new(pb::FindPeersResponse::new(file, found)))
    }
}
