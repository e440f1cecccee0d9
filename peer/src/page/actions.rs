//! What a form of the page may change. Each action is a call that a verb makes, too.

use std::{collections::HashMap, time::Duration};

use proto::{pb, reason::Reason};
use tonic::Status;

use super::{api::Api, app::App};
use crate::{
    invitation::{self, InvitationError, Link},
    units,
};

/// What is shown after an action.
pub(super) enum Outcome {
    /// The page that the form names.
    Back,
    /// The link of an invitation, which is shown once.
    Invited(Link),
    /// This peer's copy of so many bytes is intact.
    Intact(u64),
}

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
pub(super) async fn carry_out(app: &App, form: &Form) -> Result<Outcome, Status> {
    match form.get("do").as_str() {
        "invite" => return invite(app, form).await.map(Outcome::Invited),
        "verify" => return verify(&app.api, form).await.map(Outcome::Intact),
        _ => change(&app.api, form).await?,
    }
    Ok(Outcome::Back)
}

async fn change(api: &Api, form: &Form) -> Result<(), Status> {
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

/// Makes an invitation.
async fn invite(app: &App, form: &Form) -> Result<Link, Status> {
    let wrong = |message: String| Reason::InvalidRequest.status(message);
    let failed = |error: InvitationError| error.reason().status(error.to_string());
    let (uses, expires) = (form.get("uses"), form.get("expires"));
    let uses = if uses.trim().is_empty() { Ok(0) } else { uses.trim().parse() };
    let lifetime = (!expires.trim().is_empty()).then(|| units::parse_lifetime(expires.trim()));
    let lifetime: Option<Duration> = lifetime.transpose().map_err(wrong)?;
    let group = form.get("group");
    let request = pb::CreateInviteRequest {
        group_id: group.clone(),
        uses: uses.map_err(|_| wrong("the number of people is no number; try 1".to_owned()))?,
        lifetime: lifetime
            .map(prost_types::Duration::try_from)
            .transpose()
            .map_err(|error| wrong(error.to_string()))?,
        name: String::new(),
    };
    // The link is of no use if others can't verify the tracker, so this comes first.
    let tracker = app.api.status().await?.tracker;
    let authority = invitation::authority(&tracker, &app.trusted_ca).await.map_err(failed)?;
    let answer = app.api.groups().create_invite(request).await?.into_inner();
    invitation::link(&tracker, authority, &group, "", &answer.secret, &answer.tracker_addresses)
        .map_err(failed)
}

/// Checks this peer's copy of a file. Returns its size.
async fn verify(api: &Api, form: &Form) -> Result<u64, Status> {
    let request = pb::VerifyRequest { file: form.file() };
    let mut progress = api.control().verify(request).await?.into_inner();
    while let Some(answer) = progress.message().await? {
        if answer.done {
            return Ok(answer.size);
        }
    }
    Err(Reason::Internal.status("the check ended without a result; try again"))
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
