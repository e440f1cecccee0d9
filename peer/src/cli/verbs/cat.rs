//! `cat`: the bytes of a file on standard output.

use proto::{pb, reason::Reason};
use tonic::Status;

use crate::cli::{
    args::GroupFile,
    context::Context,
    exit::{Exit, Failure},
    render,
};

pub(super) async fn cat(
    context: &Context,
    file: &GroupFile,
    offset: u64,
    length: Option<u64>,
) -> Result<(), Failure> {
    // A name has no slash. What follows one is the path of a file in a folder.
    let (name, path) = file.name.split_once('/').unwrap_or((&file.name, ""));
    let named = pb::FileName { group_id: file.group.clone(), name: name.to_owned() };
    let mut rest = pb::ReadRequest { file: Some(named), path: path.to_owned(), offset, length };
    loop {
        let begin = rest.offset;
        match copy(context, &mut rest).await? {
            Ok(()) => return Ok(()),
            // The daemon cuts off a reader that takes nothing for long, such as a player that was paused.
            Err(status) if Reason::of(&status).is_none() && rest.offset > begin => {}
            Err(status) => return Err(status.into()),
        }
    }
}

/// Copies to standard output. Takes what was written off the request. The inner error is that of the daemon.
async fn copy(context: &Context, rest: &mut pb::ReadRequest) -> Result<Result<(), Status>, Failure> {
    let mut control = context.daemon().await?.control();
    let mut answers = match control.read(rest.clone()).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        let data = match answers.message().await {
            Ok(Some(answer)) => answer.data,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        };
        let count = data.len() as u64;
        // Whoever reads may pause. Ctrl-C must work meanwhile.
        let written = tokio::task::spawn_blocking(move || render::bytes(&data)).await;
        let written = written.map_err(std::io::Error::other).flatten();
        written.map_err(|error| Failure { exit: Exit::Other, ..Failure::io("standard output", &error) })?;
        rest.offset += count;
        rest.length = rest.length.map(|length| length - count);
    }
}
