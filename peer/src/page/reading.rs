//! Files over HTTP, whole or in parts, while they arrive.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proto::pb;
use tokio_stream::StreamExt as _;

use super::{
    app::App,
    range::{Part, part},
    refusal::Refusal,
};

/// The content of a file must not act as a part of this page, whatever it is.
const POLICY: &str = "sandbox; default-src 'none'; media-src 'self'; img-src 'self'";

/// The kinds that browsers show, by the ending of the name. None of them can hold a script.
const KINDS: [(&str, &str); 18] = [
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("webm", "video/webm"),
    ("ogv", "video/ogg"),
    ("mov", "video/quicktime"),
    ("mkv", "video/x-matroska"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("wav", "audio/wav"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
];

/// The kind of a file that browsers show, by its name.
pub(super) fn kind(name: &str) -> Option<&'static str> {
    let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
    KINDS.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind)
}

/// `GET /read/GROUP/NAME` and `HEAD`.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    method: Method,
    Path((group, whole_name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (name, path) = whole_name.split_once('/').unwrap_or((&whole_name, ""));
    let file = Some(pb::FileName { group_id: group, name: name.to_owned() });
    let request = |offset, length| pb::ReadRequest {
        file: file.clone(),
        path: path.to_owned(),
        offset,
        length: Some(length),
    };
    let (about, _) = app.api.read(request(0, 0)).await?;
    let tag = format!("\"{}\"", HEXLOWER.encode(&about.root));
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let part = part(text(header::RANGE), text(header::IF_RANGE), &tag, about.size);
    let (status, bytes) = match part {
        Part::Whole => (StatusCode::OK, 0..about.size),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Outside => {
            let range = format!("bytes */{}", about.size);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, range)]).into_response());
        }
    };
    let length = bytes.end - bytes.start;
    let body = if method == Method::HEAD || length == 0 {
        Body::empty()
    } else {
        let (_, data) = app.api.read(request(bytes.start, length)).await?;
        // An error ends the body too early, which the browser notices by its length.
        Body::from_stream(data.map(|message| message.map(|message| message.data)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let shown = kind(&whole_name);
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_LENGTH, &length.to_string());
    set(header::CONTENT_TYPE, shown.unwrap_or("application/octet-stream"));
    set(header::ACCEPT_RANGES, "bytes");
    set(header::ETAG, &tag);
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    if shown.is_none() {
        set(header::CONTENT_DISPOSITION, "attachment");
    }
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, &format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, about.size));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_no_script_is_shown() {
        assert_eq!(kind("a.b.MP4"), Some("video/mp4"));
        for other in ["a.html", "a.svg", "a.xml", "a.pdf", "mp4", "a.mp4.html", ""] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
