//! What the daemon of a home knows about the arguments of a line.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap_complete::engine::CompletionCandidate;
use proto::pb::{self, DownloadState, Standing};

use crate::{
    cli::{
        exit::Failure,
        link::{self, Daemon},
        render,
    },
    config::Config,
    units,
};

/// How long the daemon and the tracker may take to answer. What came until then counts.
const LIMIT: Duration = Duration::from_millis(700);
/// The number of items that are asked for in one call.
const PAGE: u32 = 1_000;
/// The most candidates of one answer. Nobody chooses from more.
const MOST: usize = 20_000;

/// A question about an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    AllGroups,
    /// The groups that the user is a member of.
    Groups,
    OwnedGroups,
    /// The groups whose members the user manages.
    ManagedGroups,
    /// The groups that an answer to another question is about.
    GroupsOf(&'static Self),
    /// The users who have asked to join the group.
    Requests,
    /// The members of the group who do not own it.
    OtherMembers,
    Files,
    Shares,
    /// The tokens of the user.
    Tokens,
    /// The groups that have a subscription.
    Subscriptions,
    /// Shares and downloads: what `verify` can read.
    Copies,
    RunningDownloads,
    EndedDownloads,
}

/// One that can be chosen.
#[derive(Debug)]
struct Found {
    group: Option<String>,
    name: String,
    help: String,
}

/// Whom to ask, and about which group.
#[derive(Debug)]
pub(super) struct Facts {
    /// `None` if the line's settings can't be used.
    pub(super) config: Option<Config>,
    /// The group that stands before the word.
    pub(super) group: Option<String>,
    /// `--` stands before the word: names may begin with a dash.
    pub(super) after_dashes: bool,
}

impl Facts {
    /// Asks. Whatever goes wrong, there are fewer candidates then.
    pub(super) fn candidates(&self, ask: Ask) -> Vec<CompletionCandidate> {
        // The shell of this program runs in a runtime of its own, and a thread can only be in one.
        let found = std::thread::scope(|scope| scope.spawn(|| self.run(ask)).join()).unwrap_or_default();
        let mut names: Vec<(String, String)> = match ask {
            Ask::GroupsOf(_) => {
                found.into_iter().filter_map(|one| Some((one.group?, String::new()))).collect()
            }
            _ => {
                let here = |one: &Found| one.group.is_none() || one.group == self.group;
                found.into_iter().filter(here).map(|one| (one.name, one.help)).collect()
            }
        };
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        let names = names.into_iter().map(|(name, help)| (OsString::from(name), help));
        names
            .filter(|(name, _)| is_word(name, self.after_dashes))
            .map(|(name, help)| CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into())))
            .collect()
    }

    fn run(&self, ask: Ask) -> Vec<Found> {
        let mut found = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let (Some(config), Ok(runtime)) = (&self.config, runtime) {
            // A failure and the end of the time are the same here.
            let _ = runtime
                .block_on(async { tokio::time::timeout(LIMIT, self.gather(config, ask, &mut found)).await });
            runtime.shutdown_background();
        }
        found
    }

    async fn gather(&self, config: &Config, ask: Ask, found: &mut Vec<Found>) -> Result<(), Failure> {
        // Which tracker is meant does not matter: nothing is changed.
        let config = Config { tracker_insisted: false, ..config.clone() };
        let daemon = link::reach(&config, false).await?;
        let group = || self.group.clone().ok_or_else(|| Failure::usage("no group stands before the word"));
        let ask = match ask {
            Ask::GroupsOf(inner) => *inner,
            ask => ask,
        };
        match ask {
            Ask::AllGroups => groups(&daemon, false, |_| true, found).await,
            Ask::Groups => {
                let inside = |standing| {
                    !matches!(standing, Standing::Unspecified | Standing::None | Standing::Requested)
                };
                groups(&daemon, true, inside, found).await
            }
            Ask::ManagedGroups => {
                let managed = |standing| matches!(standing, Standing::Manager | Standing::Owner);
                groups(&daemon, true, managed, found).await
            }
            Ask::OwnedGroups => groups(&daemon, true, |standing| standing == Standing::Owner, found).await,
            Ask::Requests => requests(&daemon, group()?, found).await,
            Ask::OtherMembers => members(&daemon, group()?, found).await,
            Ask::Files => files(&daemon, group()?, found).await,
            Ask::Shares => shares(&daemon, found).await,
            Ask::Tokens => {
                let answer = daemon.auth().list_tokens(pb::ListTokensRequest {}).await?.into_inner();
                found.extend(answer.tokens.into_iter().map(|one| Found {
                    group: None,
                    name: one.name,
                    help: one.group_ids.join(", "),
                }));
                Ok(())
            }
            Ask::Subscriptions => subscriptions(&daemon, found).await,
            Ask::Copies => {
                shares(&daemon, found).await?;
                downloads(&daemon, |_| true, found).await
            }
            Ask::RunningDownloads => downloads(&daemon, |state| !is_over(state), found).await,
            Ask::EndedDownloads => {
                let ended = |state| matches!(state, DownloadState::Stopped | DownloadState::Failed);
                downloads(&daemon, ended, found).await
            }
            Ask::GroupsOf(_) => Ok(()),
        }
    }
}

fn is_over(state: DownloadState) -> bool {
    matches!(state, DownloadState::Complete | DownloadState::Stopped | DownloadState::Failed)
}

/// Fetches all pages of a list, and keeps what comes.
macro_rules! pages {
    ($client:expr, $method:ident, $items:ident, $request:expr, $found:expr, $each:expr) => {{
        let mut client = $client;
        let mut request = $request;
        request.page_size = PAGE;
        loop {
            let page = client.$method(request.clone()).await?.into_inner();
            $found.extend(page.$items.into_iter().filter_map($each));
            if page.next_page_token.is_empty() || $found.len() >= MOST {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    }};
}

async fn groups(
    daemon: &Daemon,
    mine: bool,
    wanted: impl Fn(Standing) -> bool,
    found: &mut Vec<Found>,
) -> Result<(), Failure> {
    let request = pb::ListGroupsRequest { mine, ..Default::default() };
    pages!(daemon.groups(), list_groups, groups, request, found, |group: pb::Group| {
        let help = format!("owner {}", render::name(&group.owner));
        wanted(group.standing()).then_some(Found { group: None, name: group.group_id, help })
    })
}

async fn requests(daemon: &Daemon, group_id: String, found: &mut Vec<Found>) -> Result<(), Failure> {
    let request = pb::ListJoinRequestsRequest { group_id, ..Default::default() };
    pages!(daemon.groups(), list_join_requests, requests, request, found, |one: pb::JoinRequest| {
        Some(Found { group: None, name: one.username, help: "has asked to join".to_owned() })
    })
}

async fn members(daemon: &Daemon, group_id: String, found: &mut Vec<Found>) -> Result<(), Failure> {
    let request = pb::ListMembersRequest { group_id, ..Default::default() };
    pages!(daemon.groups(), list_members, members, request, found, |one: pb::Member| {
        let other = one.role() != Standing::Owner;
        other.then_some(Found { group: None, name: one.username, help: String::new() })
    })
}

async fn files(daemon: &Daemon, group_id: String, found: &mut Vec<Found>) -> Result<(), Failure> {
    let request = pb::ListFilesRequest { group_id, ..Default::default() };
    pages!(daemon.files(), list_files, files, request, found, |one: pb::File| {
        let header = one.header?;
        Some(Found { group: None, name: header.name, help: units::size(header.length) })
    })
}

async fn shares(daemon: &Daemon, found: &mut Vec<Found>) -> Result<(), Failure> {
    let answer = daemon.control().list_shares(pb::ListSharesRequest {}).await?.into_inner();
    let shares = answer.shares.into_iter();
    found.extend(shares.map(|one| Found {
        group: Some(one.group_id),
        name: one.name,
        help: units::size(one.size),
    }));
    Ok(())
}

async fn subscriptions(daemon: &Daemon, found: &mut Vec<Found>) -> Result<(), Failure> {
    let answer = daemon.control().list_subscriptions(pb::ListSubscriptionsRequest {}).await?.into_inner();
    found.extend(answer.subscriptions.into_iter().map(|one| Found {
        group: None,
        name: one.group_id,
        help: one.directory,
    }));
    Ok(())
}

async fn downloads(
    daemon: &Daemon,
    wanted: impl Fn(DownloadState) -> bool,
    found: &mut Vec<Found>,
) -> Result<(), Failure> {
    let request = pb::ListDownloadsRequest { follow: false };
    let mut answers = daemon.control().list_downloads(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let downloads = answer.downloads.into_iter().filter(|one| wanted(one.state()));
        found.extend(downloads.map(|one| Found {
            help: render::state(one.state()).to_owned(),
            group: Some(one.group_id),
            name: one.name,
        }));
    }
    Ok(())
}

/// Whether the name can stand in a line as it is: a name that begins with a dash would be taken for a flag.
fn is_word(name: &OsStr, after_dashes: bool) -> bool {
    after_dashes || !name.as_encoded_bytes().starts_with(b"-")
}
