//! The verbs, one file for each group of verbs.

mod account;
mod cat;
pub(super) mod daemon;
mod download;
mod files;
pub(super) mod groups;
mod invites;
mod leaving;
mod offline;
mod several;
pub(super) mod shell;
mod subscriptions;
mod tokens;
mod watch;

use proto::pb;

use super::{
    args::{ConfigVerb, GroupFile, RequestsVerb, Verb},
    context::Context,
    exit::{Exit, Failure},
};

/// Carries out a verb.
pub(super) async fn dispatch(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let done = match verb {
        Verb::Daemon(args) => daemon::control(context, &args).await,
        Verb::Ui { listen, no_open } => daemon::page(context, listen, no_open).await,
        Verb::Status => daemon::status(context).await,
        Verb::Doctor => return daemon::doctor(context).await,
        Verb::Limit { up, down } => daemon::limit(context, up.as_deref(), down.as_deref()).await,
        Verb::ExportCert { dir } => daemon::export_cert(context, &dir).await,

        Verb::CreateUser(credentials) => account::create_user(context, credentials).await,
        Verb::ChangePassword(source) => account::change_password(context, &source).await,
        Verb::Login(credentials) => account::login(context, credentials).await,
        Verb::CreateToken(args) => tokens::create(context, args).await,
        Verb::ListTokens => tokens::list(context).await,
        Verb::RevokeToken { token } => tokens::revoke(context, &token).await,
        Verb::Logout(leaving) => account::logout(context, false, &leaving).await,
        Verb::LogoutAll(leaving) => account::logout(context, true, &leaving).await,
        Verb::Whoami => account::whoami(context).await,

        Verb::CreateGroup(group) => groups::create(context, &group.group).await,
        Verb::ListGroups { mine } => groups::list(context, mine).await,
        Verb::JoinGroup { group, wait } => groups::join(context, &group, wait).await,
        Verb::LeaveGroup { group, leaving } => groups::leave(context, &group.group, &leaving).await,
        Verb::ListRequests(group) | Verb::Requests { verb: RequestsVerb::ListRequests(group) } => {
            groups::requests(context, &group.group).await
        }
        Verb::AcceptRequest(who) => groups::accept(context, &who).await,
        Verb::RejectRequest(who) => groups::reject(context, &who).await,
        Verb::ListMembers(group) => groups::members(context, &group.group).await,
        Verb::RemoveMember(who) => groups::remove(context, &who).await,
        Verb::TransferGroup(who) => groups::transfer(context, &who).await,
        Verb::SetRole { who, role } => groups::set_role(context, &who, &role).await,
        Verb::DeleteGroup(group) => groups::delete(context, &group.group).await,

        Verb::Invite(args) => invites::create(context, args).await,
        Verb::ListInvites(group) => invites::list(context, &group.group).await,
        Verb::RevokeInvite { group, id } => invites::revoke(context, &group, &id).await,
        Verb::Join(guest) => invites::join(context, &guest).await,
        Verb::Get { guest, dest } => return invites::get(context, &guest, &dest).await,

        Verb::ListFiles { group, name: None, at_risk, copies } => {
            files::list(context, &group, at_risk.then(|| copies.unwrap_or(2))).await
        }
        Verb::ListFiles { group, name: Some(name), .. } => {
            files::entries(context, &GroupFile { group, name }).await
        }
        Verb::Upload { path, rest, options } => return files::upload(context, path, rest, options).await,
        Verb::Watch { dir, group, existing, replace } => {
            watch::watch(context, &dir, &group, existing, replace).await
        }
        Verb::Unpublish(file) => files::unpublish(context, &file).await,
        Verb::ListShares => files::shares(context).await,
        Verb::StopShare { file, leaving } => files::stop_share(context, &file, &leaving).await,
        Verb::Verify(file) => files::verify(context, &file).await,
        Verb::Ticket(file) => files::ticket(context, &file).await,

        Verb::Cat { file, offset, length } => cat::cat(context, &file, offset, length).await,
        Verb::Subscribe { group, dir, matching, existing, update, exec } => {
            let request = pb::SubscribeRequest {
                group_id: group,
                patterns: matching,
                existing,
                update,
                exec,
                ..Default::default()
            };
            subscriptions::subscribe(context, &dir, request).await
        }
        Verb::ListSubscriptions => subscriptions::list(context).await,
        Verb::Unsubscribe(group) => subscriptions::unsubscribe(context, &group.group).await,

        Verb::Explain(file) => download::explain(context, &file).await,
        Verb::Who { file, follow } => files::who(context, &file, follow).await,
        Verb::Download { group, name, rest, options } => {
            let rest: Vec<_> = name.into_iter().chain(rest).collect();
            return download::download(context, &group, &rest, &options).await;
        }
        Verb::Update { file, dry_run: true, .. } => download::plan_update(context, &file).await,
        Verb::Update { file, detach, .. } => return download::update(context, &file, detach).await,
        Verb::ShowDownloads { follow } => download::show(context, follow).await,
        Verb::StopDownload { file, discard, leaving } => {
            download::stop(context, &file, discard, &leaving).await
        }
        Verb::ClearDownloads => download::clear(context).await,
        Verb::ResumeDownload(file) => download::resume(context, &file).await,

        Verb::Hash { path } => offline::hash(context, &path).await,
        Verb::Completions { shell } => offline::completions(shell),
        Verb::Man => offline::man(),
        Verb::Config { verb: ConfigVerb::Show } => offline::show_config(context),
        // The shell is not run from here: it runs the other verbs.
        Verb::Shell => return Err(Failure::usage("the shell can't be run in this way; run `peer shell`")),
    };
    done.map(|()| Exit::Done)
}
