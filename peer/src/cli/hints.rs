//! What a failure says about this very group: the remedy with the group's name in it, and whether the user
//! only has to wait.

use std::time::Duration;

use proto::{pb, reason::Reason};

use super::{args::Verb, context::Context, exit::Failure, verbs::groups};
use crate::paths::word;

/// How long the tracker may take to say what the user's standing is. Then the failure is printed without it.
const LIMIT: Duration = Duration::from_secs(3);

/// The group that a verb is about.
pub(super) fn group_of(verb: &Verb) -> Option<String> {
    let group = match verb {
        Verb::JoinGroup { group, .. }
        | Verb::Download { group, .. }
        | Verb::Subscribe { group, .. }
        | Verb::Watch { group, .. }
        | Verb::ListFiles { group, .. } => group,
        Verb::Upload { rest, .. } => return rest.last()?.to_str().map(str::to_owned),
        Verb::LeaveGroup { group: one, .. }
        | Verb::ListRequests(one)
        | Verb::ListMembers(one)
        | Verb::DeleteGroup(one)
        | Verb::ListInvites(one) => &one.group,
        Verb::Invite(args) => &args.group,
        Verb::RevokeInvite { group, .. } => group,
        Verb::AcceptRequest(one)
        | Verb::RejectRequest(one)
        | Verb::RemoveMember(one)
        | Verb::SetRole { who: one, .. }
        | Verb::TransferGroup(one) => &one.group,
        Verb::Unpublish(file)
        | Verb::Ticket(file)
        | Verb::ResumeDownload(file)
        | Verb::Who { file, .. }
        | Verb::Update { file, .. } => &file.group,
        _ => return None,
    };
    Some(group.clone())
}

/// The failure with the group's name in its remedies. Tells a user who asked to be let in that the owner has
/// not answered yet.
pub(super) async fn about(mut failure: Failure, group: Option<&str>, context: &Context) -> Failure {
    let Some(group) = group else { return failure };
    if failure.reason == Reason::NotAMember.as_str() {
        let standing = tokio::time::timeout(LIMIT, groups::standing(context, group)).await;
        if matches!(standing, Ok(Ok(Some(pb::Standing::Requested)))) {
            let name = word(group);
            failure.message = format!(
                "your request to join {} waits for the answer of its owner; `peer join-group {name} --wait` waits for it",
                super::render::name(group),
            );
        }
    }
    failure.message = failure.message.replace(" GROUP`", &format!(" {}`", word(group)));
    failure
}
