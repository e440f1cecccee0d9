//! What a form of the page may change. Each action is a call that a verb makes, too.

use std::collections::HashMap;

use proto::{pb, reason::Reason};
use tonic::Status;

use super::api::Api;
use crate::units;

/// The fields of a form.
#[derive(Debug, Default)]
pub(super) struct Form(HashMap<String, String>);

impl Form {
    /// Reads the body of a request, as a browser sends it.
    pub(super) fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// Reads the query of an address.
    pub(super) fn of_query(uri: &http::Uri) -> Self {
        Self::read(uri.query().unwrap_or_default().as_bytes())
    }

    /// The value of a field; empty if there is none.
    pub(super) fn get(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn file(&self) -> Option<pb::FileName> {
        Some(pb::FileName { group_id: self.get("group"), name: self.get("name") })
    }

    /// The page to go back to. Only a path of this page is one.
    pub(super) fn back(&self) -> String {
        let back = self.get("back");
        let is_path = back.starts_with('/') && !back.starts_with("//") && !back.contains(['\\', '\r', '\n']);
        if is_path && back.is_ascii() { back } else { "/".to_owned() }
    }

    /// A rate limit; `None` if the field is empty.
    fn rate(&self, name: &str) -> Result<Option<u64>, Status> {
        let text = self.get(name);
        let wrong = |error: units::RateError| Reason::InvalidRequest.status(error.to_string());
        (!text.trim().is_empty()).then(|| units::parse_rate(&text)).transpose().map_err(wrong)
    }
}

/// Does what the form says.
///
/// # Errors
/// Fails with the answer of the daemon or the tracker.
pub(super) async fn carry_out(api: &Api, form: &Form) -> Result<(), Status> {
    let (group_id, username) = (form.get("group"), form.get("user"));
    let (mut control, mut groups) = (api.control(), api.groups());
    match form.get("do").as_str() {
        "create-group" => groups.create_group(pb::CreateGroupRequest { group_id }).await.map(drop),
        "join-group" => groups.join_group(pb::JoinGroupRequest { group_id }).await.map(drop),
        "leave-group" => groups.leave_group(pb::LeaveGroupRequest { group_id }).await.map(drop),
        "accept" => {
            groups.accept_join_request(pb::AcceptJoinRequestRequest { group_id, username }).await.map(drop)
        }
        "reject" => {
            groups.reject_join_request(pb::RejectJoinRequestRequest { group_id, username }).await.map(drop)
        }
        "remove" => groups.remove_member(pb::RemoveMemberRequest { group_id, username }).await.map(drop),
        "download" => {
            let request = pb::DownloadRequest {
                file: form.file(),
                destination: form.get("to"),
                make_parents: true,
                ..Default::default()
            };
            control.download(request).await.map(drop)
        }
        "share" => share(api, form).await,
        "stop-download" => {
            let request = pb::StopDownloadRequest { file: form.file(), discard: false };
            control.stop_download(request).await.map(drop)
        }
        "discard-download" => {
            let request = pb::StopDownloadRequest { file: form.file(), discard: true };
            control.stop_download(request).await.map(drop)
        }
        "resume-download" => {
            control.resume_download(pb::ResumeDownloadRequest { file: form.file() }).await.map(drop)
        }
        "clear-downloads" => control.clear_downloads(pb::ClearDownloadsRequest {}).await.map(drop),
        "stop-share" => control.stop_share(pb::StopShareRequest { file: form.file() }).await.map(drop),
        "limits" => {
            let request = pb::SetLimitsRequest { upload: form.rate("up")?, download: form.rate("down")? };
            control.set_limits(request).await.map(drop)
        }
        _ => Err(Reason::InvalidRequest.status("the form asks for nothing that this page does")),
    }
}

/// Shares a path, and waits until it is published.
async fn share(api: &Api, form: &Form) -> Result<(), Status> {
    let request =
        pb::UploadRequest { path: form.get("path"), group_id: form.get("group"), ..Default::default() };
    let mut progress = api.control().upload(request).await?.into_inner();
    while progress.message().await?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_back_to_this_page_alone() {
        for (field, expected) in [
            ("back=%2Fgroup%2Fg1", "/group/g1"),
            ("back=%2F%2Fevil.example", "/"),
            ("back=%2F%5Cevil.example", "/"),
            ("back=https%3A%2F%2Fevil.example", "/"),
            ("back=%2Fx%0D%0ASet-Cookie%3A+a", "/"),
            ("back=%2F%C3%A4", "/"),
            ("", "/"),
        ] {
            assert_eq!(Form::read(field.as_bytes()).back(), expected, "{field}");
        }
    }

    #[test]
    fn limits_are_rates() {
        let form = Form::read(b"up=500K&down=&other=x");
        assert_eq!(form.rate("up").expect("a rate"), Some(500_000));
        assert_eq!(form.rate("down").expect("nothing"), None);
        assert!(form.rate("other").is_err());
    }
}
