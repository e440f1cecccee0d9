//! The calls of the page: the same service, by the same messages, as those of the command line.

use std::convert::Infallible;

use proto::pb::{
    self, control_service_client::ControlServiceClient, file_service_client::FileServiceClient,
    group_service_client::GroupServiceClient,
};
use tonic::{Status, Streaming, body::Body};
use tower::util::BoxCloneSyncService;

/// The service that answers all calls on the daemon's socket.
pub(crate) type ControlService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The number of items on one page of a list.
const PAGE: u32 = 500;
/// The number of files on one page of a group.
const FILES: u32 = 100;
/// The longest answer in bytes: a list of very many downloads.
const MAX_ANSWER: usize = 64 << 20;

/// Makes the calls.
#[derive(Clone)]
pub(super) struct Api(ControlService);

impl Api {
    pub(super) fn new(service: ControlService) -> Self {
        Self(service)
    }

    pub(super) fn control(&self) -> ControlServiceClient<ControlService> {
        ControlServiceClient::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(super) fn groups(&self) -> GroupServiceClient<ControlService> {
        GroupServiceClient::new(self.0.clone())
    }

    pub(super) fn files(&self) -> FileServiceClient<ControlService> {
        FileServiceClient::new(self.0.clone())
    }

    pub(super) async fn status(&self) -> Result<pb::GetStatusResponse, Status> {
        Ok(self.control().get_status(pb::GetStatusRequest {}).await?.into_inner())
    }

    /// The findings of all checks.
    pub(super) async fn checks(&self) -> Result<Vec<pb::Check>, Status> {
        Ok(self.control().diagnose(pb::DiagnoseRequest {}).await?.into_inner().checks)
    }

    /// Why a download is as fast as it is.
    pub(super) async fn explain(&self, file: pb::FileName) -> Result<pb::ExplainResponse, Status> {
        Ok(self.control().explain(pb::ExplainRequest { file: Some(file) }).await?.into_inner())
    }

    pub(super) async fn downloads(&self) -> Result<Vec<pb::Download>, Status> {
        let mut list =
            self.control().list_downloads(pb::ListDownloadsRequest { follow: false }).await?.into_inner();
        Ok(list.message().await?.unwrap_or_default().downloads)
    }

    pub(super) async fn shares(&self) -> Result<Vec<pb::Share>, Status> {
        Ok(self.control().list_shares(pb::ListSharesRequest {}).await?.into_inner().shares)
    }

    /// The groups that the user is in or asked to join.
    pub(super) async fn my_groups(&self) -> Result<Vec<pb::Group>, Status> {
        let request = pb::ListGroupsRequest { mine: true, page_size: PAGE, ..Default::default() };
        Ok(self.groups().list_groups(request).await?.into_inner().groups)
    }

    pub(super) async fn members(&self, group: &str) -> Result<Vec<pb::Member>, Status> {
        let request =
            pb::ListMembersRequest { group_id: group.to_owned(), page_size: PAGE, ..Default::default() };
        Ok(self.groups().list_members(request).await?.into_inner().members)
    }

    pub(super) async fn requests(&self, group: &str) -> Result<Vec<pb::JoinRequest>, Status> {
        let request =
            pb::ListJoinRequestsRequest { group_id: group.to_owned(), page_size: PAGE, ..Default::default() };
        Ok(self.groups().list_join_requests(request).await?.into_inner().requests)
    }

    /// A page of a group's files. The page that follows is named by its token, if there is one.
    pub(super) async fn files_of(
        &self,
        group: &str,
        page_token: &str,
    ) -> Result<pb::ListFilesResponse, Status> {
        let (group_id, page_token) = (group.to_owned(), page_token.to_owned());
        let request = pb::ListFilesRequest { group_id, page_size: FILES, page_token };
        Ok(self.files().list_files(request).await?.into_inner())
    }

    /// Reads a part of a file. The first message has its length and root.
    pub(super) async fn read(
        &self,
        request: pb::ReadRequest,
    ) -> Result<(pb::ReadResponse, Streaming<pb::ReadResponse>), Status> {
        let mut bytes = self.control().read(request).await?.into_inner();
        let first = bytes.message().await?.unwrap_or_default();
        Ok((first, bytes))
    }
}
