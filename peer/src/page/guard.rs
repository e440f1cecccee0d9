//! The checks of each request, and the headers of each answer.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{app::App, doors};

/// Everything comes from this page alone, nothing runs inline, and no other page shows it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The headers of every answer, unless it sets its own.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // With `no-referrer`, browsers would send the page's own forms without an origin.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Passes a request on if its sender may use the page.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&app, &request) {
        None => next.run(request).await,
        Some((status, message)) => (status, message).into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn refusal(app: &App, request: &Request) -> Option<(StatusCode, &'static str)> {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !doors::is_own_host(host, app.address.port(), app.is_public()) {
        return Some((StatusCode::MISDIRECTED_REQUEST, "this is not the host that the request names\n"));
    }
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads && !doors::is_own_origin(text(header::ORIGIN), app.scheme(), host) {
        return Some((StatusCode::FORBIDDEN, "the request comes from another page\n"));
    }
    if reads && request.uri().path().starts_with("/enter/") {
        return None;
    }
    let name = doors::cookie_name(app.address.port());
    let cookie = text(header::COOKIE).and_then(|cookies| doors::cookie(cookies, &name)).unwrap_or_default();
    let is_open = app.doors.lock().is_open(app.started.elapsed(), cookie);
    (!is_open).then_some((StatusCode::UNAUTHORIZED, "run `peer ui` for a link to this page\n"))
}
