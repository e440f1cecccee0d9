//! What is where.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Path, Request, State},
    middleware::from_fn_with_state,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri, header};
use maud::Markup;
use tonic::Status;

use super::{
    actions::{self, Form, Outcome},
    app::App,
    doors, events, guard, reading,
    refusal::Refusal,
    views,
};

const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");
/// The most bytes of a form.
const FORM: usize = 64 << 10;
/// How long an action may take. Sharing a large file takes as long as hashing it.
const ACTION: Duration = Duration::from_secs(3_600);

/// The routes of the page.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/enter/{link}", get(enter))
        .route("/group/{group}", get(group))
        .route("/play/{group}/{*name}", get(file))
        .route("/checks", get(checks))
        .route("/read/{group}/{*name}", get(reading::read))
        .route("/events", get(events::events))
        .route("/do", post(act))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such page\n") })
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app.clone())
}

type Shown = Result<Html<String>, Refusal>;

fn shown(page: Markup) -> Html<String> {
    Html(page.into_string())
}

async fn enter(State(app): State<Arc<App>>, Path(link): Path<String>, headers: HeaderMap) -> Response {
    let cookie = app.doors.lock().enter(app.started.elapsed(), &link, &rand::random());
    let Some(cookie) = cookie else {
        let message = "this link was used or is too old; `peer ui` prints a new one\n";
        return (StatusCode::UNAUTHORIZED, message).into_response();
    };
    let name = doors::cookie_name(app.address.port());
    let secure = if app.is_public() { "; Secure" } else { "" };
    let cookie = format!("{name}={cookie}; HttpOnly; SameSite=Strict; Path=/{secure}");
    let cookie = [(header::SET_COOKIE, cookie)];
    // A browser that was sent here by a file, such as that of `peer ui`, does not send the cookie with what follows at once.
    match headers.get("sec-fetch-site").and_then(|site| site.to_str().ok()) {
        Some("cross-site") => (cookie, shown(views::forward())).into_response(),
        _ => (cookie, Redirect::to("/")).into_response(),
    }
}

async fn overview(State(app): State<Arc<App>>, uri: Uri) -> Shown {
    let sections = events::overview(&app, &Form::of_query(&uri).get("after")).await?;
    Ok(shown(views::page("Mini Torrent", "/", &sections)))
}

async fn group(State(app): State<Arc<App>>, Path(group): Path<String>, uri: Uri) -> Shown {
    let sections = events::group(&app.api, &group, &Form::of_query(&uri).get("after")).await?;
    Ok(shown(views::page(&group, &views::link(&["group", &group]), &sections)))
}

async fn file(State(app): State<Arc<App>>, Path((group, name)): Path<(String, String)>) -> Shown {
    let sections = events::file(&app, &group, &name).await?;
    Ok(shown(views::file(&group, &name, reading::kind(&name), &sections)))
}

async fn checks(State(app): State<Arc<App>>) -> Shown {
    Ok(shown(views::checks(&app.api.checks().await?)))
}

async fn act(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let body: Bytes = match to_bytes(request.into_body(), FORM).await {
        Ok(body) => body,
        Err(_) => return Ok((StatusCode::PAYLOAD_TOO_LARGE, "the form is too long\n").into_response()),
    };
    let form = Form::read(&body);
    let done = tokio::time::timeout(ACTION, actions::carry_out(&app, &form)).await;
    let done = done.map_err(|_| Status::deadline_exceeded("this takes too long"))??;
    Ok(match done {
        Outcome::Back => Redirect::to(&form.back()).into_response(),
        Outcome::Invited(link) => shown(views::groups::invited(&link, &form.back())).into_response(),
        Outcome::Intact(size) => {
            shown(views::files::intact(&form.get("name"), size, &form.back())).into_response()
        }
    })
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
