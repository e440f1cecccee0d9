//! What a page shows, and the news of it as server-sent events: a section is sent again when it has changed.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, Sse},
};
use http::Uri;
use proto::pb::Standing;
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
/// Something is sent at one look of so many, so that a browser that went away is noticed.
const SIGN: u64 = 15;

/// All sections of the first page.
pub(super) async fn overview(api: &Api) -> Result<Vec<Section>, Status> {
    let mut sections = local(api).await?;
    sections.push(("groups", "Groups", views::groups::groups(&api.my_groups().await?)));
    Ok(sections)
}

/// The sections that this daemon knows by itself.
async fn local(api: &Api) -> Result<Vec<Section>, Status> {
    let status = api.status().await?;
    Ok(vec![
        ("status", "This peer", views::status(&status)),
        ("downloads", "Downloads", views::files::downloads(&api.downloads().await?)),
        ("shares", "Shares", views::files::shares(&api.shares().await?)),
    ])
}

/// All sections of the page of a group.
pub(super) async fn group(api: &Api, group: &str, after: &str) -> Result<Vec<Section>, Status> {
    let members = api.members(group).await?;
    let user = api.status().await?.username;
    let is_owner = members.iter().any(|member| member.username == user && member.role() == Standing::Owner);
    let mut sections = Vec::new();
    if is_owner {
        let requests = views::groups::requests(group, &api.requests(group).await?);
        sections.push(("requests", "Requests to join", requests));
    }
    let files = api.files_of(group, after).await?;
    let (downloads, shares) = (api.downloads().await?, api.shares().await?);
    let here = views::files::Here::new(group, &downloads, &shares);
    sections.push(("files", "Files", views::files::files(group, &files, &here)));
    sections.push(("members", "Members", views::groups::members(group, &members, is_owner, &user)));
    Ok(sections)
}

/// The state of one stream of events.
struct News {
    api: Api,
    /// The group that is shown; `None` for the first page.
    group: Option<String>,
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
        let sections = match &self.group {
            None if asks => overview(&self.api).await,
            None => local(&self.api).await,
            Some(group) if asks => self::group(&self.api, group, &self.after).await,
            Some(_) => Ok(Vec::new()),
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
    let group = Some(asked.get("group")).filter(|group| !group.is_empty());
    let mut clock = interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = News {
        api: app.api.clone(),
        group,
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
