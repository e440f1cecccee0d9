//! ControlService: decode, ask the agent, encode.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use proto::{
    convert as wire,
    convert::ConvertError,
    domain::{FileName, GroupId},
    pb::{self, control_service_server::ControlService},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::convert;
use crate::{
    agent::{Agent, DownloadOptions, Farewell, NewSubscription, UpdatePlan, UploadProgress},
    engine::DownloadState,
    error::PeerError,
    hashing::scan::ScanOptions,
    observe::with_same_id,
    page::{ControlService as Whole, Opened, Page},
    paths,
    patterns::{Exceptions, Patterns},
};

/// The time to wait before a download is looked up again.
const FOLLOW: Duration = Duration::from_millis(500);

/// The most receivers in one message.
const RECEIVERS: usize = 64;
/// The most words of a program that runs after a download, and the longest of them, in bytes.
const MOST_WORDS: usize = 64;
const MOST_WORD: usize = 4_096;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Makes the whole service of the socket once more, for the page.
pub(super) type Again = dyn Fn() -> Whole + Send + Sync;

/// The service. See the module's documentation.
pub(super) struct Control {
    agent: Arc<Agent>,
    shutdown: CancellationToken,
    page: Arc<Page>,
    again: Arc<Again>,
}

impl Control {
    /// Answers with the state of a download, and with all that follow if the caller wants them.
    fn follow_download(
        &self,
        group: GroupId,
        name: FileName,
        destination: Option<PathBuf>,
        wants_all: bool,
        current: bool,
    ) -> Result<Response<Answers<pb::DownloadResponse>>, Status> {
        let mut first = self.agent.find_download(&group, &name)?;
        // If the file was copied, shows the copy where it was asked for. No source sent it.
        if let Some(destination) = destination.filter(|destination| first.entry.path != *destination)
            && first.view.state == DownloadState::Complete
        {
            first.view.sources.clear();
            first.entry.path = destination;
        }
        let answer =
            move |status| pb::DownloadResponse { download: Some(convert::download(status)), current };
        if !wants_all || first.view.state.is_final() {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer(first))))));
        }
        let view = self.agent.engine().watch(first.entry.file).ok_or(PeerError::NotLoggedIn)?;
        let agent = Arc::clone(&self.agent);
        Ok(Response::new(follow(view, move || {
            let status = agent.find_download(&group, &name)?;
            Ok((status.view.state, answer(status)))
        })))
    }

    pub(super) fn new(
        agent: Arc<Agent>,
        shutdown: CancellationToken,
        page: Arc<Page>,
        again: Arc<Again>,
    ) -> Self {
        Self { agent, shutdown, page, again }
    }
}

fn file_name(file: Option<pb::FileName>) -> Result<(GroupId, FileName), PeerError> {
    let file = file.ok_or(ConvertError::Missing("file"))?;
    Ok((wire::group_id(&file.group_id)?, wire::file_name(&file.name)?))
}

fn absolute(text: String, exact: &[u8]) -> Result<PathBuf, PeerError> {
    let path = paths::from_wire(text, exact);
    if path.is_absolute() { Ok(path) } else { Err(PeerError::RelativePath(path)) }
}

/// The umask of a request; that of a private file if it has none.
fn umask(asked: Option<u32>) -> u32 {
    asked.unwrap_or(0o077) & 0o777
}

/// The program of a request, with its arguments.
fn exec(line: Vec<String>) -> Result<Vec<String>, PeerError> {
    let is_bad = |word: &String| word.len() > MOST_WORD || word.contains('\0');
    if line.len() > MOST_WORDS || line.iter().any(is_bad) || line.first().is_some_and(String::is_empty) {
        return Err(PeerError::Exec);
    }
    Ok(line)
}

fn timestamp(at: std::time::SystemTime) -> prost_types::Timestamp {
    at.into()
}

#[tonic::async_trait]
impl ControlService for Control {
    type UploadStream = Answers<pb::UploadResponse>;
    type DownloadStream = Answers<pb::DownloadResponse>;
    type ListDownloadsStream = Answers<pb::ListDownloadsResponse>;
    type VerifyStream = Answers<pb::VerifyResponse>;
    type ListEntriesStream = Answers<pb::ListEntriesResponse>;
    type ReadStream = Answers<pb::ReadResponse>;

    async fn login(
        &self,
        request: Request<pb::ControlServiceLoginRequest>,
    ) -> Result<Response<pb::ControlServiceLoginResponse>, Status> {
        let request = request.into_inner();
        let (password, token) = (Zeroizing::new(request.password), Zeroizing::new(request.token));
        let peer = if token.is_empty() {
            self.agent.log_in(wire::username(&request.username)?, password, request.new_key).await?
        } else {
            self.agent.log_in_with_token(token, request.new_key).await?
        };
        let session = self.agent.status().session.ok_or(PeerError::NotLoggedIn)?;
        Ok(Response::new(pb::ControlServiceLoginResponse {
            username: session.user.to_string(),
            peer_id: peer.to_string(),
            token_name: session.token_name.unwrap_or_default(),
        }))
    }

    async fn logout(
        &self,
        request: Request<pb::ControlServiceLogoutRequest>,
    ) -> Result<Response<pb::ControlServiceLogoutResponse>, Status> {
        let farewell = self.agent.log_out(request.into_inner().all).await?;
        Ok(Response::new(pb::ControlServiceLogoutResponse {
            tracker_unreachable: farewell == Farewell::Untold,
            session_shared: farewell == Farewell::Shared,
        }))
    }

    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let status = self.agent.status();
        let engine = self.agent.engine();
        let (upload_limit, download_limit) = engine.set_limits(None, None);
        let stats = engine.stats();
        let expires = status.session.as_ref().map(|session| session.expires_at).filter(|at| *at > 0);
        Ok(Response::new(pb::GetStatusResponse {
            username: status.session.as_ref().map(|session| session.user.to_string()).unwrap_or_default(),
            token_name: status.session.and_then(|session| session.token_name).unwrap_or_default(),
            peer_id: status.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            tls_name: status.peer.map(|peer| peer.tls_name()).unwrap_or_default(),
            tracker: self.agent.tracker().line().url().to_owned(),
            trackers: self.agent.tracker().trackers().urls().to_vec(),
            tracker_connected: status.announce.connected,
            listen: status.listen.to_string(),
            advertise: status.advertise.first().cloned().unwrap_or_default(),
            addresses: status.advertise,
            tracker_problem: status.announce.problem.unwrap_or_default(),
            upload_rate: stats.upload_rate,
            download_rate: stats.download_rate,
            upload_limit,
            download_limit,
            shares: count(status.shares),
            downloads: count(status.downloads),
            uploads_active: stats.uploads_active,
            uploads_waiting: stats.uploads_waiting,
            session_expires_at: expires.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            certificate_expires_at: status.identity.map(|identity| timestamp(identity.not_after)),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            receivers: engine.receivers().into_iter().take(RECEIVERS).map(convert::receiver).collect(),
        }))
    }

    async fn diagnose(
        &self,
        _: Request<pb::DiagnoseRequest>,
    ) -> Result<Response<pb::DiagnoseResponse>, Status> {
        let checks = self.agent.diagnose().await.into_iter().map(convert::check).collect();
        Ok(Response::new(pb::DiagnoseResponse { checks }))
    }

    async fn upload(
        &self,
        request: Request<pb::UploadRequest>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        let request = request.into_inner();
        let path = absolute(request.path, &request.path_bytes)?;
        let group = wire::group_id(&request.group_id)?;
        let name = match request.name.as_str() {
            "" => path.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
            name => name,
        };
        let name = wire::new_file_name(name)?;
        // The length of a folder is not known before it is listed.
        let size =
            std::fs::metadata(&path).ok().filter(|found| found.is_file()).map_or(0, |found| found.len());
        let options = ScanOptions { exclude: request.exclude, skip_unsupported: request.skip_unsupported };
        let agent = Arc::clone(&self.agent);
        Ok(Response::new(with_progress(
            move |progress| async move {
                let uploaded = agent.upload(path, group, name, options, request.replace, progress).await?;
                let done = pb::UploadDone {
                    name: uploaded.name.to_string(),
                    file_id: uploaded.file.as_bytes().to_vec().into(),
                    blake3: uploaded.blake3.as_bytes().to_vec().into(),
                    already_published: uploaded.already,
                    replaced: uploaded.replaced,
                    folder: uploaded
                        .files
                        .map(|files| pb::FolderUploaded { files, skipped: uploaded.skipped as u64 }),
                };
                Ok(pb::UploadResponse { hashed_bytes: uploaded.size, size: uploaded.size, done: Some(done) })
            },
            move |hashed_bytes| pb::UploadResponse { hashed_bytes, size, done: None },
        )))
    }

    async fn download(
        &self,
        request: Request<pb::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let request = request.into_inner();
        let (group, name) = file_name(request.file)?;
        if request.update {
            let current = !self.agent.update(&group, &name, umask(request.umask)).await?;
            return self.follow_download(group, name, None, request.follow, current);
        }
        Patterns::new(&request.only, Exceptions::Refused).map_err(PeerError::Pattern)?;
        let options = DownloadOptions {
            only: request.only,
            destination: absolute(request.destination, &request.destination_bytes)?,
            make_parents: request.make_parents,
            sequential: request.sequential,
            verify: request.verify,
            repair: request.repair,
            umask: umask(request.umask),
            exec: exec(request.exec)?,
        };
        let destination = options.destination.clone();
        self.agent.download(&group, &name, options).await?;
        self.follow_download(group, name, Some(destination), request.follow, false)
    }

    async fn list_downloads(
        &self,
        request: Request<pb::ListDownloadsRequest>,
    ) -> Result<Response<Self::ListDownloadsStream>, Status> {
        let agent = Arc::clone(&self.agent);
        let now = move || {
            let downloads = agent.downloads()?.into_iter().map(convert::download).collect();
            Ok::<_, PeerError>(pb::ListDownloadsResponse { downloads })
        };
        let first = now()?;
        if !request.into_inner().follow {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)))));
        }
        let mut last = None;
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(FOLLOW));
        let changes = ticks.filter_map(move |_| {
            let current = now().map_err(Status::from);
            let news = !matches!((&current, &last), (Ok(current), Some(last)) if current == last);
            last = current.as_ref().ok().cloned();
            news.then_some(current)
        });
        // The stream ends after the first error, which means that nobody is logged in any more.
        let mut ended = false;
        Ok(Response::new(Box::pin(
            changes.take_while(move |answer| !std::mem::replace(&mut ended, answer.is_err())),
        )))
    }

    async fn stop_download(
        &self,
        request: Request<pb::StopDownloadRequest>,
    ) -> Result<Response<pb::StopDownloadResponse>, Status> {
        let request = request.into_inner();
        let (group, name) = file_name(request.file)?;
        self.agent.stop_download(&group, &name, request.discard).await?;
        Ok(Response::new(pb::StopDownloadResponse {}))
    }

    async fn clear_downloads(
        &self,
        _: Request<pb::ClearDownloadsRequest>,
    ) -> Result<Response<pb::ClearDownloadsResponse>, Status> {
        let cleared = count(self.agent.clear_downloads().await?);
        Ok(Response::new(pb::ClearDownloadsResponse { cleared }))
    }

    async fn resume_download(
        &self,
        request: Request<pb::ResumeDownloadRequest>,
    ) -> Result<Response<pb::ResumeDownloadResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        self.agent.resume_download(&group, &name).await?;
        Ok(Response::new(pb::ResumeDownloadResponse {}))
    }

    async fn list_shares(
        &self,
        _: Request<pb::ListSharesRequest>,
    ) -> Result<Response<pb::ListSharesResponse>, Status> {
        let shares = self.agent.shares()?.into_iter().map(convert::share).collect();
        Ok(Response::new(pb::ListSharesResponse { shares }))
    }

    async fn stop_share(
        &self,
        request: Request<pb::StopShareRequest>,
    ) -> Result<Response<pb::StopShareResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        self.agent.stop_share(&group, &name).await?;
        Ok(Response::new(pb::StopShareResponse {}))
    }

    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        let size = self.agent.size_of(&group, &name).unwrap_or_default();
        let agent = Arc::clone(&self.agent);
        let checking = move |checked_bytes| pb::VerifyResponse { checked_bytes, size, ..Default::default() };
        let answers = with_progress(
            move |progress| async move {
                match agent.verify(&group, &name, progress).await {
                    Ok(()) => Ok((pb::VerifyResponse { done: true, ..checking(size) }, None)),
                    Err(PeerError::Damaged { group, name, damage }) => {
                        let (bad, bad_files) = (convert::bad_pieces(&damage), convert::bad_files(&damage));
                        let damaged = PeerError::Damaged { group, name, damage };
                        Ok((pb::VerifyResponse { bad, bad_files, ..checking(size) }, Some(damaged)))
                    }
                    Err(error) => Err(error),
                }
            },
            move |checked_bytes| (checking(checked_bytes), None),
        );
        // The bad pieces come in a message of their own, before the error that ends the stream.
        let answers = futures_util::StreamExt::flat_map(answers, |answer| {
            let (message, error) = match answer {
                Ok((message, error)) => (Some(Ok(message)), error.map(|error| Err(error.into()))),
                Err(status) => (None, Some(Err(status))),
            };
            tokio_stream::iter(message.into_iter().chain(error))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn set_limits(
        &self,
        request: Request<pb::SetLimitsRequest>,
    ) -> Result<Response<pb::SetLimitsResponse>, Status> {
        let request = request.into_inner();
        let (upload, download) = self.agent.engine().set_limits(request.upload, request.download);
        Ok(Response::new(pb::SetLimitsResponse { upload, download }))
    }

    async fn export_cert(
        &self,
        _: Request<pb::ExportCertRequest>,
    ) -> Result<Response<pb::ExportCertResponse>, Status> {
        let (certificate_pem, key_pem, tls_name) = self.agent.certificate()?;
        Ok(Response::new(pb::ExportCertResponse { certificate_pem, key_pem: key_pem.to_string(), tls_name }))
    }

    async fn get_ticket(
        &self,
        request: Request<pb::GetTicketRequest>,
    ) -> Result<Response<pb::GetTicketResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        let (file, ticket, sources) = self.agent.ticket(&group, &name).await?;
        let file_id = file.as_bytes().to_vec().into();
        Ok(Response::new(pb::GetTicketResponse { file_id, ticket: ticket.to_string(), sources }))
    }

    async fn list_peers(
        &self,
        request: Request<pb::ListPeersRequest>,
    ) -> Result<Response<pb::ListPeersResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        let (peers, pieces) = self.agent.peers_of(&group, &name).await?;
        let peers = peers.into_iter().map(convert::file_peer).collect();
        Ok(Response::new(pb::ListPeersResponse { peers, pieces }))
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<Self::ListEntriesStream>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        let (header, folder) = self.agent.entries(&group, &name).await?;
        Ok(Response::new(Box::pin(tokio_stream::iter(convert::entries(header, folder).map(Ok)))))
    }

    async fn plan_update(
        &self,
        request: Request<pb::PlanUpdateRequest>,
    ) -> Result<Response<pb::PlanUpdateResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        let UpdatePlan { current, size, fetch_bytes, take_bytes } =
            self.agent.plan_update(&group, &name).await?;
        Ok(Response::new(pb::PlanUpdateResponse { current, size, fetch_bytes, take_bytes }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let (group, name) = file_name(request.into_inner().file)?;
        Ok(Response::new(convert::explanation(self.agent.explain(&group, &name)?)))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let pb::ReadRequest { file, path, offset, length } = request.into_inner();
        let (group, name) = file_name(file)?;
        let readable = self.agent.readable(&group, &name, &path).await?;
        let reader = self.agent.read(&readable, offset, length)?;
        let root = reader.root().as_bytes().to_vec().into();
        let first = Ok(pb::ReadResponse { size: readable.size(), root, ..Default::default() });
        // Nothing is read ahead of the caller, who takes one message at a time.
        let bytes = futures_util::stream::try_unfold(reader, |mut reader| async {
            let data = reader.next().await.map_err(PeerError::from)?;
            Ok(data.map(|data| (pb::ReadResponse { data, ..Default::default() }, reader)))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(first).chain(bytes))))
    }

    async fn open_page(
        &self,
        request: Request<pb::OpenPageRequest>,
    ) -> Result<Response<pb::OpenPageResponse>, Status> {
        let link = self.page.link(&request.into_inner().listen, &*self.again, &self.shutdown).await;
        let Opened { url, fingerprint } = link.map_err(PeerError::from)?;
        Ok(Response::new(pb::OpenPageResponse { url, certificate_sha256: fingerprint.unwrap_or_default() }))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<pb::SubscribeResponse>, Status> {
        let request = request.into_inner();
        let new = NewSubscription {
            group: wire::group_id(&request.group_id)?,
            directory: absolute(request.directory, &request.directory_bytes)?,
            patterns: request.patterns,
            existing: request.existing,
            update: request.update,
            umask: umask(request.umask),
            exec: exec(request.exec)?,
        };
        self.agent.subscribe(new).await?;
        Ok(Response::new(pb::SubscribeResponse {}))
    }

    async fn list_subscriptions(
        &self,
        _: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let subscriptions = self.agent.subscriptions()?.into_iter().map(convert::subscription).collect();
        Ok(Response::new(pb::ListSubscriptionsResponse { subscriptions }))
    }

    async fn unsubscribe(
        &self,
        request: Request<pb::UnsubscribeRequest>,
    ) -> Result<Response<pb::UnsubscribeResponse>, Status> {
        self.agent.unsubscribe(&wire::group_id(&request.get_ref().group_id)?)?;
        Ok(Response::new(pb::UnsubscribeResponse {}))
    }

    async fn list_last_copies(
        &self,
        request: Request<pb::ListLastCopiesRequest>,
    ) -> Result<Response<pb::ListLastCopiesResponse>, Status> {
        let request = request.into_inner();
        let group = Some(request.group_id).filter(|group| !group.is_empty());
        let group = group.map(|group| wire::group_id(&group)).transpose()?;
        let name = Some(request.name).filter(|name| !name.is_empty());
        let name = name.map(|name| wire::file_name(&name)).transpose()?;
        let copies = request.copies.max(1) as usize;
        let found = self.agent.last_copies(group.as_ref(), name.as_ref(), copies).await?;
        if request.drain {
            self.agent.drain(&found);
        }
        let files = found.into_iter().map(convert::last_copy).collect();
        Ok(Response::new(pb::ListLastCopiesResponse { files }))
    }

    async fn shutdown(
        &self,
        _: Request<pb::ShutdownRequest>,
    ) -> Result<Response<pb::ShutdownResponse>, Status> {
        tracing::info!("stopping, because a verb requested it");
        self.shutdown.cancel();
        Ok(Response::new(pb::ShutdownResponse {}))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Streams the progress of `work`, then its outcome. A slow caller gets only the newest progress. Dropping
/// the stream drops the work.
fn with_progress<T, F>(
    work: impl FnOnce(UploadProgress) -> F,
    message: impl Fn(u64) -> T + Send + 'static,
) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, PeerError>> + Send + 'static,
{
    let (told, mut progress) = watch::channel(0);
    let work = work(Arc::new(move |bytes| {
        told.send_replace(bytes);
    }));
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(with_same_id(async move {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                () = sender.closed() => return,
                outcome = &mut work => {
                    // A caller that has gone away needs no outcome.
                    let _ = sender.send(outcome.map_err(Status::from)).await;
                    return;
                }
                Ok(()) = progress.changed() => {
                    let bytes = *progress.borrow_and_update();
                    // A caller that is behind gets the next message.
                    let _ = sender.try_send(Ok(message(bytes)));
                }
            }
        }
    }));
    Box::pin(ReceiverStream::new(answers))
}

/// Streams `now()` at once and whenever the view changes, until the download ends or the daemon has given it
/// up.
fn follow<T, V>(
    mut view: watch::Receiver<V>,
    now: impl Fn() -> Result<(DownloadState, T), PeerError> + Send + 'static,
) -> Answers<T>
where
    T: Send + 'static,
    V: Send + Sync + 'static,
{
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(with_same_id(async move {
        loop {
            view.mark_unchanged();
            let current = now().map_err(Status::from);
            let last = current.as_ref().map_or(true, |(state, _)| state.is_final());
            if sender.send(current.map(|(_, message)| message)).await.is_err() || last {
                return;
            }
            tokio::select! {
                () = sender.closed() => return,
                changed = view.changed() => if changed.is_err() {
                    // The engine no longer reports on this download, because it was stopped, resumed or
                    // cleared. The library has its state.
                    tokio::time::sleep(FOLLOW).await;
                }
            }
        }
    }));
    Box::pin(ReceiverStream::new(answers))
}
