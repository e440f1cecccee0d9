//! The engine alone, without the daemon around it.

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, bail};
use peer::{
    engine::{DownloadSpec, DownloadState, Engine, EngineConfig, ShareSpec, SourceAddr},
    hashing::{Hashed, manifest_of},
};
use proto::domain::PeerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use transport::{Congestion, ConnInfo, Limits, Security, listen, send_uploads};

use super::{
    cpu_time,
    identity::{Dial, Tickets, file_id, group, make_all, peer_id, server, ticket_keys},
    report,
};

fn hash(path: &Path) -> Result<Hashed> {
    let name = path.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    Ok(manifest_of(path, name.parse().context("not a name of a shared file")?, &|_| {
        ControlFlow::Continue(())
    })?)
}

/// Shares the file until it is killed.
#[tokio::main]
pub(super) async fn serve(tls: bool, path: &Path, dir: &Path) -> Result<()> {
    make_all(dir)?;
    let hashed = hash(path)?;
    let root = hashed.manifest.header().blake3;
    let tickets = Tickets::of(peer_id(dir, "seeder")?, root)?;
    let engine =
        Engine::new(EngineConfig::default(), Arc::new(Dial::of(dir, "seeder", tls)?), Arc::new(tickets));
    engine.set_ticket_keys(ticket_keys()?);
    engine.raise_epochs(vec![(group()?, 1)]);
    engine
        .share(ShareSpec {
            group: group()?,
            file: file_id()?,
            manifest: Arc::new(hashed.manifest),
            path: std::path::absolute(path)?,
            stamp: Some(hashed.stamp),
            folder: None,
            only: Vec::new(),
        })
        .await?;

    let listener = listen(([127, 0, 0, 1], 0).into())?;
    send_uploads(&listener, &Congestion::Auto)?;
    println!("listening {}", listener.local_addr()?);
    let (_keep, config) = watch::channel(if tls { Some(server(dir)?) } else { None });
    let security = if tls { Security::Tls(config) } else { Security::Plaintext };
    // Without TLS nothing authenticates the caller, so every caller is taken for the one leecher.
    let leecher = peer_id(dir, "leecher")?;
    let service = engine.service().map_request(move |request| known(request, tls, leecher));
    transport::serve(listener, security, service, Limits::peer(), CancellationToken::new()).await?;
    Ok(())
}

fn known(
    mut request: http::Request<tonic::body::Body>,
    tls: bool,
    leecher: PeerId,
) -> http::Request<tonic::body::Body> {
    if !tls && let Some(info) = request.extensions_mut().get_mut::<ConnInfo>() {
        info.peer = Some(leecher);
    }
    request
}

/// Fetches the file that the engine at `address` shares. The time runs from the report of the source to the
/// engine until the copy is in place.
#[tokio::main]
pub(super) async fn fetch(tls: bool, path: &Path, dir: &Path, address: &str, to: &Path) -> Result<()> {
    // In the product the tracker hands out the manifest. That is not measured here.
    let manifest = Arc::new(hash(path)?.manifest);
    let tickets = Tickets::of(peer_id(dir, "leecher")?, manifest.header().blake3)?;
    let dial = Arc::new(Dial::of(dir, "leecher", tls)?);
    let engine = Engine::new(EngineConfig::default(), dial, Arc::new(tickets));
    let spec = DownloadSpec {
        group: group()?,
        file: file_id()?,
        manifest,
        destination: std::path::absolute(to)?,
        sequential: false,
        verify: false,
        umask: 0o022,
        begun: false,
        done_bytes: 0,
        copy: None,
        only: Vec::new(),
    };
    let mut view = engine.download(spec).await?;
    let source = SourceAddr {
        peer: peer_id(dir, "seeder")?,
        addresses: vec![address.to_owned()],
        username: "seeder".parse().context("a valid name")?,
    };
    let (cpu, start) = (cpu_time()?, Instant::now());
    engine.sources(file_id()?, vec![source], Vec::new());
    let ended = view.wait_for(|view| view.state.is_final()).await?.clone();
    let took = start.elapsed();
    if ended.state != DownloadState::Complete {
        bail!("the download ended as {:?}: {:?}", ended.state, ended.problem);
    }
    report(took, cpu)
}
