//! Invitations: making a link, and getting from a link to a group and its file.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use program::settings::Origin;
use proto::{
    domain::invite::{HostPort, InviteLink},
    pb,
    reason::Reason,
};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde_json::json;
use tonic::Status;
use transport::{AuthorityFingerprint, fingerprints};

use super::{download, groups};
use crate::{
    cli::{
        args::{DownloadOptions, Guest, InviteArgs},
        context::Context,
        exit::{Exit, Failure},
        link::{self, Daemon},
        password, render,
    },
    config::Config,
    invitation::{self, InvitationError, Link, shown_authority},
    tracker::list::{TrackerList, url_parts},
    units,
};

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(12);

pub(super) async fn create(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    let InviteArgs { group, uses, expires, file, qr } = args;
    let expires = expires.map(|text| units::parse_lifetime(&text)).transpose().map_err(Failure::usage)?;
    let lifetime = expires.map(prost_types::Duration::try_from).transpose().map_err(Failure::usage)?;
    let daemon = context.daemon().await?;
    // The link is of no use if others can't verify the tracker, so this comes first.
    let tracker = daemon.control().get_status(pb::GetStatusRequest {}).await?.into_inner().tracker;
    let authority = invitation::authority(&tracker, &context.config.home.trusted_ca()).await?;
    let request = pb::CreateInviteRequest {
        group_id: group.clone(),
        uses: uses.unwrap_or_default(),
        lifetime,
        name: file.clone().unwrap_or_default(),
    };
    let answer = daemon.groups().create_invite(request).await?.into_inner();
    let Link { text: link, is_local } = invitation::link(
        &tracker,
        authority,
        &group,
        file.as_deref().unwrap_or_default(),
        &answer.secret,
        &answer.tracker_addresses,
    )?;
    let invite = answer.invite.ok_or(InvitationError::Broken("no invitation"))?;
    let mut text = link.clone();
    if qr {
        let code = QrCode::with_error_correction_level(&link, EcLevel::L);
        let code = code.map_err(|error| Failure::usage(format!("the link fits into no QR code: {error}")))?;
        text += "\n\n";
        // Light on dark, as most terminals are.
        text += &code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    }
    let object = json!({
        "group": group,
        "invite_id": invite.invite_id,
        "link": link,
        "name": file,
        "uses": invite.uses,
        "expires_at": render::time(invite.expires_at),
    });
    context.style.result(&object, &text);
    if is_local && !context.config.quiet && !context.config.json {
        render::note(
            "this link works on this machine only: the tracker serves no other, or does not know the name that others \
             use; `tracker-svc serve --listen [::]:7700 --tls-name HOST` tells it",
        );
    }
    Ok(())
}

pub(super) async fn list(context: &Context, group: &str) -> Result<(), Failure> {
    let client = context.daemon().await?.groups();
    let request = pb::ListInvitesRequest { group_id: group.to_owned(), ..Default::default() };
    let (object, text) = render::invites(&groups::all_pages!(client, list_invites, invites, request));
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn revoke(context: &Context, group: &str, id: &str) -> Result<(), Failure> {
    let request = pb::RevokeInviteRequest { group_id: group.to_owned(), invite_id: id.to_owned() };
    context.daemon().await?.groups().revoke_invite(request).await?;
    let text = format!("the invitation {} was revoked; members that used it stay", render::name(id));
    context.style.done(&json!({"group": group, "invite_id": id}), &text);
    Ok(())
}

pub(super) async fn join(context: &Context, guest: &Guest) -> Result<(), Failure> {
    let link = parsed(guest)?;
    let user = enter(context, &link, guest).await?;
    let group = link.group.as_str();
    let text = format!("{} is a member of {}", render::name(&user), render::name(group));
    let name = link.file.as_ref().map(|name| name.as_str());
    context.style.done(&json!({"group": group, "user": user, "standing": "member", "name": name}), &text);
    Ok(())
}

pub(super) async fn get(context: &Context, guest: &Guest, dest: &Path) -> Result<Exit, Failure> {
    let link = parsed(guest)?;
    let Some(name) = &link.file else {
        let group = render::name(link.group.as_str());
        return Err(Failure::usage(format!("the link names the group {group} and no file; use `peer join`")));
    };
    enter(context, &link, guest).await?;
    download::one(context, link.group.as_str(), name.as_str(), dest, &DownloadOptions::default()).await
}

fn parsed(guest: &Guest) -> Result<InviteLink, Failure> {
    // The link is not repeated in the message: it contains the secret.
    guest.link.trim().parse().map_err(Failure::usage)
}

/// Makes this home's user a member of the link's group. Returns the user.
async fn enter(context: &Context, link: &InviteLink, guest: &Guest) -> Result<String, Failure> {
    let invite = pb::InviteKey { group_id: link.group.to_string(), secret: link.secret.text() };
    let running = match context.running_daemon().await {
        Ok(daemon) => Some(daemon),
        Err(failure) if failure.exit == Exit::NoDaemon && !failure.is_silence() => None,
        Err(failure) => return Err(failure),
    };
    // A home that was left logged in is resumed by its daemon.
    let running = match running {
        None if context.config.home.session_file().exists() => Some(context.daemon().await?),
        running => running,
    };
    let mut standing = pb::GetStatusResponse::default();
    if let Some(daemon) = &running {
        standing = daemon.control().get_status(pb::GetStatusRequest {}).await?.into_inner();
    }
    if let Some(daemon) = running.as_ref().filter(|_| !standing.username.is_empty()) {
        fits(context, link, guest, &standing)?;
        let request = pb::JoinByInviteRequest { invite: Some(invite) };
        daemon.groups().join_by_invite(request).await?;
        return Ok(standing.username);
    }
    let config = pinned(context, link).await?;
    if let Some(daemon) = &running {
        give_way(context, daemon, &config, &standing.tracker).await?;
    }
    let daemon = link::reach(&config, true).await?;
    let user = match &guest.user {
        Some(user) => user.clone(),
        None => asked_user(context).await?,
    };
    let prompt = format!("Password of {}, new or known", render::name(&user));
    let [password] = password::read(context, &guest.source, [&prompt], false).await?;
    if password::is_typed(&guest.source) {
        // Only who makes an account types the password twice.
        match log_in(&daemon, &user, &password).await {
            Ok(()) => {
                let request = pb::JoinByInviteRequest { invite: Some(invite) };
                daemon.groups().join_by_invite(request).await?;
                return Ok(user);
            }
            Err(status) if Reason::of(&status) == Some(Reason::BadCredentials) => {
                let again =
                    format!("There is no {} with this password. To make it, repeat it", render::name(&user));
                password::confirm(context, &password, &again).await?;
            }
            Err(status) => return Err(status.into()),
        }
    }
    sign_up(&daemon, &user, &password, invite).await?;
    Ok(user)
}

/// Checks that the user who is logged in can use the link.
fn fits(
    context: &Context,
    link: &InviteLink,
    guest: &Guest,
    standing: &pb::GetStatusResponse,
) -> Result<(), Failure> {
    let (_, host, port) = url_parts(&standing.tracker);
    let is_named = HostPort::new(host, port).is_ok_and(|own| link.trackers.contains(&own));
    let authority = AuthorityFingerprint::from(link.authority);
    let kept = std::fs::read_to_string(context.config.home.trusted_ca());
    // A tracker is known by its CA, whatever name is used for it.
    let is_same = kept.is_ok_and(|pem| fingerprints(&pem).is_ok_and(|all| all.contains(&authority)));
    if !is_same {
        let why = if is_named { "has another CA than the link says" } else { "is not the link's" };
        return Err(Failure::of(
            Reason::AnotherTracker,
            format!(
                "{} is logged in at {}, which {why}; log out first, or use another --home",
                standing.username, standing.tracker
            ),
        ));
    }
    match &guest.user {
        Some(user) if *user != standing.username => Err(Failure::of(
            Reason::LoggedInAsAnother,
            format!("{} is logged in; log out first, or use another --home", standing.username),
        )),
        _ => Ok(()),
    }
}

/// The settings with the link's trackers. The first is one that shows the CA that the link names.
async fn pinned(context: &Context, link: &InviteLink) -> Result<Config, Failure> {
    let pin = AuthorityFingerprint::from(link.authority);
    let mut problems = Vec::new();
    for address in &link.trackers {
        match shown_authority(address.host(), address.port()).await {
            Ok(shown) if shown == pin => {
                // The address that answers comes first.
                let others = link.trackers.iter().filter(|other| *other != address);
                let urls: Vec<_> =
                    [address].into_iter().chain(others).map(|at| format!("https://{at}")).collect();
                let trackers = TrackerList::parse(&urls.join(",")).map_err(Failure::usage)?;
                let mut config = context.config.clone();
                if config.tracker_insisted && !config.trackers.shares_one(&trackers) {
                    let message = format!("the link's tracker is {trackers}, and not {}", config.trackers);
                    return Err(Failure::of(Reason::AnotherTracker, message));
                }
                (config.trackers, config.tracker_insisted, config.ca_sha256) = (trackers, true, Some(pin));
                // A daemon that is started gets these as flags.
                for shown in &mut config.shown {
                    let value = match shown.name {
                        "tracker" => config.trackers.to_string(),
                        "ca_sha256" => pin.to_string(),
                        _ => continue,
                    };
                    (shown.value, shown.origin) = (value, Origin::Flag);
                }
                return Ok(config);
            }
            Ok(shown) => problems.push(format!("{address} shows another CA, {shown}")),
            Err(error) => problems.push(format!("{address}: {error}")),
        }
    }
    Err(Failure::of(
        Reason::TrackerUnreachable,
        format!("the link's tracker can't be reached: {}", problems.join("; ")),
    ))
}

/// Stops a daemon at which nobody is logged in, unless it works with the link's tracker already.
async fn give_way(context: &Context, daemon: &Daemon, config: &Config, tracker: &str) -> Result<(), Failure> {
    let trusts = async || daemon.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.is_ok();
    if config.trackers.urls().iter().any(|url| url == tracker) && trusts().await {
        return Ok(());
    }
    if context.config.no_autostart {
        let message =
            format!("the daemon works with {tracker}; stop it, and start one for {}", config.trackers);
        return Err(Failure::of(Reason::AnotherTracker, message));
    }
    daemon.control().shutdown(pb::ShutdownRequest {}).await?;
    if link::wait_for_end(config, END).await? {
        return Ok(());
    }
    Err(Failure::silent("the daemon did not end in time; `peer daemon stop` ends it"))
}

async fn asked_user(context: &Context) -> Result<String, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("say who you are or want to be: --user NAME"));
    }
    let read = tokio::task::spawn_blocking(|| {
        let mut out = io::stderr().lock();
        out.write_all(b"Username, new or known: ").and_then(|()| out.flush())?;
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line.trim().to_owned())
    });
    let line = context.typing.during(read).await.map_err(io::Error::other).and_then(|line| line);
    line.map_err(|error| Failure::io("the terminal", &error))
}

/// Makes the account, which is a member then, or else logs in and joins.
async fn sign_up(daemon: &Daemon, user: &str, password: &str, invite: pb::InviteKey) -> Result<(), Failure> {
    let request = pb::CreateUserRequest {
        username: user.to_owned(),
        password: password.to_owned(),
        invite: Some(invite.clone()),
    };
    let is_new = match daemon.auth().create_user(request).await {
        Ok(_) => true,
        Err(status) if may_exist(&status) => false,
        Err(status) => return Err(status.into()),
    };
    log_in(daemon, user, password).await?;
    if !is_new {
        daemon.groups().join_by_invite(pb::JoinByInviteRequest { invite: Some(invite) }).await?;
    }
    Ok(())
}

async fn log_in(daemon: &Daemon, user: &str, password: &str) -> Result<(), Status> {
    let request = pb::ControlServiceLoginRequest {
        username: user.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    daemon.control().login(request).await.map(drop)
}

/// Whether the account may be there already.
fn may_exist(refused: &Status) -> bool {
    matches!(Reason::of(refused), Some(Reason::AlreadyExists | Reason::RegistrationClosed))
}
