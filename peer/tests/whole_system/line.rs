//! The command lines of the users: calls to the daemons over their Unix sockets.

use std::path::PathBuf;

use proto::{
    pb::{
        self, auth_service_client::AuthServiceClient, control_service_client::ControlServiceClient,
        file_service_client::FileServiceClient, group_service_client::GroupServiceClient,
    },
    reason::Reason,
};
use tonic::{Status, transport::Channel};
use transport::{ChannelTuning, ClientSecurity, Remote};

/// The password of every user.
const PASSWORD: &str = "the same long password";

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Refused by a rule. Nothing was changed.
    Refused(Reason),
    /// It may have had its effect, and may still have it.
    Unknown,
}

impl Outcome {
    /// Reads a call's answer; `None` is a call that took too long.
    pub(crate) fn of<T>(answer: Option<Result<T, Status>>) -> Self {
        use Reason as R;
        match answer {
            Some(Ok(_)) => Self::Done,
            Some(Err(status)) => match Reason::of(&status) {
                Some(
                    reason @ (R::AlreadyAsked
                    | R::AlreadyExists
                    | R::NoSuchRequest
                    | R::UserNotFound
                    | R::NotAMember
                    | R::TargetNotAMember
                    | R::GroupNotFound
                    | R::NotTheOwner),
                ) => Self::Refused(reason),
                _ => Self::Unknown,
            },
            None => Self::Unknown,
        }
    }
}

/// A command line that talks to the daemon of one host.
#[derive(Clone)]
pub(crate) struct Line(PathBuf);

type Answer<T> = Result<T, Status>;

impl Line {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self(socket)
    }

    async fn channel(&self) -> Answer<Channel> {
        let remote = Remote::Unix(self.0.clone());
        let channel = transport::connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await;
        channel.map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(crate) async fn control(&self) -> Answer<ControlServiceClient<Channel>> {
        self.channel().await.map(ControlServiceClient::new)
    }

    async fn groups(&self) -> Answer<GroupServiceClient<Channel>> {
        self.channel().await.map(GroupServiceClient::new)
    }

    pub(crate) async fn create_user(self, username: String) -> Answer<()> {
        let mut auth = AuthServiceClient::new(self.channel().await?);
        auth.create_user(pb::CreateUserRequest { username, password: PASSWORD.to_owned(), invite: None })
            .await
            .map(drop)
    }

    pub(crate) async fn log_in(self, username: String) -> Answer<()> {
        let request =
            pb::ControlServiceLoginRequest { username, password: PASSWORD.to_owned(), ..Default::default() };
        self.control().await?.login(request).await.map(drop)
    }

    pub(crate) async fn log_out(self) -> Answer<()> {
        self.control().await?.logout(pb::ControlServiceLogoutRequest { all: false }).await.map(drop)
    }

    pub(crate) async fn status(self) -> Answer<pb::GetStatusResponse> {
        Ok(self.control().await?.get_status(pb::GetStatusRequest {}).await?.into_inner())
    }

    pub(crate) async fn create_group(self, group_id: String) -> Answer<()> {
        self.groups().await?.create_group(pb::CreateGroupRequest { group_id }).await.map(drop)
    }

    pub(crate) async fn join(self, group_id: String) -> Answer<()> {
        self.groups().await?.join_group(pb::JoinGroupRequest { group_id }).await.map(drop)
    }

    pub(crate) async fn leave(self, group_id: String) -> Answer<()> {
        self.groups().await?.leave_group(pb::LeaveGroupRequest { group_id }).await.map(drop)
    }

    pub(crate) async fn accept(self, group_id: String, username: String) -> Answer<()> {
        let request = pb::AcceptJoinRequestRequest { group_id, username };
        self.groups().await?.accept_join_request(request).await.map(drop)
    }

    pub(crate) async fn remove(self, group_id: String, username: String) -> Answer<()> {
        let request = pb::RemoveMemberRequest { group_id, username };
        self.groups().await?.remove_member(request).await.map(drop)
    }

    /// The members of a group, and who asked to join it.
    pub(crate) async fn people(self, group_id: String) -> Answer<(Vec<String>, Vec<String>)> {
        let mut groups = self.groups().await?;
        let request = pb::ListMembersRequest { group_id: group_id.clone(), ..Default::default() };
        let members = groups.list_members(request).await?.into_inner().members;
        let request = pb::ListJoinRequestsRequest { group_id, ..Default::default() };
        let asked = groups.list_join_requests(request).await?.into_inner().requests;
        Ok((
            members.into_iter().map(|member| member.username).collect(),
            asked.into_iter().map(|request| request.username).collect(),
        ))
    }

    /// The names of a group's files.
    pub(crate) async fn files(self, group_id: String) -> Answer<Vec<String>> {
        let mut files = FileServiceClient::new(self.channel().await?);
        let request = pb::ListFilesRequest { group_id, ..Default::default() };
        Ok(files
            .list_files(request)
            .await?
            .into_inner()
            .files
            .into_iter()
            .filter_map(|file| file.header)
            .map(|header| header.name)
            .collect())
    }

    pub(crate) async fn upload(self, path: PathBuf, group_id: String, name: String) -> Answer<()> {
        let path = path.display().to_string();
        let request = pb::UploadRequest { path, group_id, name, ..Default::default() };
        let mut progress = self.control().await?.upload(request).await?.into_inner();
        while progress.message().await?.is_some() {}
        Ok(())
    }

    /// The names of the files that should be offered and are not.
    pub(crate) async fn troubled_shares(self) -> Answer<Vec<String>> {
        let shares = self.control().await?.list_shares(pb::ListSharesRequest {}).await?.into_inner().shares;
        let troubled = shares.into_iter().filter(|share| !share.cause.is_empty());
        Ok(troubled.map(|share| share.name).collect())
    }

    pub(crate) async fn download(self, file: pb::FileName, destination: PathBuf) -> Answer<()> {
        let request = pb::DownloadRequest {
            file: Some(file),
            destination: destination.display().to_string(),
            make_parents: true,
            ..Default::default()
        };
        let mut states = self.control().await?.download(request).await?.into_inner();
        while states.message().await?.is_some() {}
        Ok(())
    }

    pub(crate) async fn downloads(self) -> Answer<Vec<pb::Download>> {
        let request = pb::ListDownloadsRequest { follow: false };
        let mut lists = self.control().await?.list_downloads(request).await?.into_inner();
        Ok(lists.message().await?.map(|list| list.downloads).unwrap_or_default())
    }

    pub(crate) async fn stop_download(self, file: pb::FileName) -> Answer<()> {
        let request = pb::StopDownloadRequest { file: Some(file), discard: false };
        self.control().await?.stop_download(request).await.map(drop)
    }

    pub(crate) async fn resume_download(self, file: pb::FileName) -> Answer<()> {
        let request = pb::ResumeDownloadRequest { file: Some(file) };
        self.control().await?.resume_download(request).await.map(drop)
    }

    pub(crate) async fn limit(self, upload: u64, download: u64) -> Answer<()> {
        let request = pb::SetLimitsRequest { upload: Some(upload), download: Some(download) };
        self.control().await?.set_limits(request).await.map(drop)
    }
}
