//! What a page shows, and the news of it as server-sent events: a section is sent again when it has changed.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, Sse},
};
use http::Uri;
use proto::pb::{self, Standing};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    actions::Form,
    api::Api,
    app::App,
    views::{self, Section},
};

/// The time between two looks at what this daemon knows.
const LOOK: Duration = Duration::from_secs(1);
/// The tracker is asked at one look of so many.
const ASK_TRACKER: u64 = 10;
/// The shares are listed at one look of so many: there may be thousands.
const LIST_SHARES: u64 = 5;
/// Something is sent at one look of so many, so that a browser that went away is noticed.
const SIGN: u64 = 15;

/// All sections of the first page.
pub(super) async fn overview(app: &App, after: &str) -> Result<Vec<Section>, Status> {
    let mut sections = local(app, after, true).await?;
    sections.push(("groups", "Groups", views::groups::groups(&app.api.my_groups().await?)));
    Ok(sections)
}

/// The sections that this daemon knows by itself. Lists begin after so many items.
async fn local(app: &App, after: &str, with_shares: bool) -> Result<Vec<Section>, Status> {
    let (api, after) = (&app.api, after.parse().unwrap_or_default());
    let (status, downloads) = (api.status().await?, api.downloads().await?);
    let rates = app.rates.lock().all();
    let mut sections = vec![
        ("status", "This peer", views::status(&status)),
        ("rates", "Rates", views::swarm::rates(&rates)),
        ("downloads", "Downloads", views::files::downloads(&downloads, after)),
    ];
    if with_shares {
        sections.push(("shares", "Shares", views::files::shares(&api.shares().await?, after)));
    }
    // What changes its height often comes after what people read and click.
    sections.push(("swarm", "Who sends what to whom", views::swarm::flows(&downloads, &status.receivers)));
    Ok(sections)
}

/// All sections of the page of a file that this peer has or downloads.
pub(super) async fn file(app: &App, group: &str, name: &str) -> Result<Vec<Section>, Status> {
    let api = &app.api;
    // What follows the name is a path in a folder.
    let name = name.split('/').next().unwrap_or_default();
    let is_it = |its_group: &str, its_name: &str| its_group == group && its_name == name;
    let mut sections = Vec::new();
    let downloads = api.downloads().await?;
    if let Some(download) = downloads.iter().find(|one| is_it(&one.group_id, &one.name)) {
        sections.push(("download", "Download", views::files::downloads(std::slice::from_ref(download), 0)));
        let file = pb::FileName { group_id: group.to_owned(), name: name.to_owned() };
        sections.push(("why", "Why it is as fast as it is", views::files::why(&api.explain(file).await?)));
    }
    let shares = api.shares().await?;
    if let Some(share) = shares.iter().find(|one| is_it(&one.group_id, &one.name)) {
        sections.push(("share", "Share", views::files::shares(std::slice::from_ref(share), 0)));
    }
    Ok(sections)
}

/// All sections of the page of a group.
pub(super) async fn group(api: &Api, group: &str, after: &str) -> Result<Vec<Section>, Status> {
    let members = api.members(group).await?;
    let user = api.status().await?.username;
    let role = members.iter().find(|member| member.username == user).map_or(Standing::None, pb::Member::role);
    let mut sections = Vec::new();
    if matches!(role, Standing::Owner | Standing::Manager) {
        let requests = views::groups::requests(group, &api.requests(group).await?);
        sections.push(("requests", "Requests to join", requests));
    }
    let files = api.files_of(group, after).await?;
    let (downloads, shares) = (api.downloads().await?, api.shares().await?);
    let here = views::files::Here::new(group, &downloads, &shares);
    sections.push(("files", "Files", views::files::files(group, &files, &here)));
    sections.push(("members", "Members", views::groups::members(group, &members, role, &user)));
    Ok(sections)
}

/// Which page is shown.
enum Shown {
    First,
    Group(String),
    File(String, String),
}

/// The state of one stream of events.
struct News {
    app: Arc<App>,
    shown: Shown,
    after: String,
    clock: Interval,
    looks: u64,
    /// The sections as they were last sent.
    last: HashMap<&'static str, String>,
    waiting: Vec<Event>,
}

impl News {
    async fn look(&mut self) {
        self.looks += 1;
        let asks = self.looks % ASK_TRACKER == 1;
        let sections = match &self.shown {
            Shown::First if asks => overview(&self.app, &self.after).await,
            Shown::First => local(&self.app, &self.after, self.looks % LIST_SHARES == 1).await,
            Shown::Group(group) if asks => self::group(&self.app.api, group, &self.after).await,
            Shown::Group(_) => Ok(Vec::new()),
            Shown::File(group, name) => file(&self.app, group, name).await,
        };
        // What went wrong is shown in place of the state, and the rest stays as it was.
        let sections =
            sections.unwrap_or_else(|status| vec![("status", "This peer", views::problem(status.message()))]);
        for (id, _, content) in sections {
            let html = content.into_string();
            if self.last.get(id) != Some(&html) {
                self.waiting.push(Event::default().event(id).data(html.replace('\r', "")));
                self.last.insert(id, html);
            }
        }
        if self.looks.is_multiple_of(SIGN) && self.waiting.is_empty() {
            self.waiting.push(Event::default().comment("still here"));
        }
    }
}

/// `GET /events`: the news of the first page, or of the page of a group.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let asked = Form::of_query(&uri);
    let shown = match (asked.get("group"), asked.get("file")) {
        (group, _) if group.is_empty() => Shown::First,
        (group, file) if file.is_empty() => Shown::Group(group),
        (group, file) => Shown::File(group, file),
    };
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = News {
        app: app.clone(),
        shown,
        after: asked.get("after"),
        clock,
        looks: 0,
        last: HashMap::new(),
        waiting: Vec::new(),
    };
    Sse::new(futures_util::stream::unfold(stream, |mut stream| async move {
        while stream.waiting.is_empty() {
            stream.clock.tick().await;
            stream.look().await;
        }
        let event = stream.waiting.remove(0);
        Some((Ok(event), stream))
    }))
}
