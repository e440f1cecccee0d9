//! Accounts and sessions.

use proto::{pb, reason::Reason};
use serde_json::json;

use crate::cli::{
    Context,
    args::{Credentials, PasswordSource},
    exit::Failure,
    password::{self, Password},
    render, trust,
};

/// The password of `login` and `create-user`. On the line itself it may only stand in the shell.
fn password(context: &Context, credentials: &mut Credentials, repeat: bool) -> Result<Password, Failure> {
    match credentials.password.take().map(Password::new) {
        Some(password) if context.in_shell => Ok(password),
        Some(_) => Err(Failure::usage(
            "a password on the command line can be read by everybody on this machine: change it if it is in use, and \
             give it by prompt, --password-stdin or PEER_PASSWORD_FILE",
        )),
        None => {
            let prompt = format!("Password of {}", render::name(&credentials.user));
            let [password] = password::read(context, &credentials.source, [&prompt], repeat)?;
            Ok(password)
        }
    }
}

pub(super) async fn create_user(context: &Context, mut credentials: Credentials) -> Result<(), Failure> {
    let password = password(context, &mut credentials, true)?.to_string();
    let username = credentials.user;
    let daemon = context.daemon().await?;
    let request = pb::CreateUserRequest { username: username.clone(), password };
    trust::first_used(context, &daemon, async || daemon.auth().create_user(request.clone()).await).await?;
    let text = format!("{username} has an account now; `peer login {username}` comes next");
    context.style.done(&json!({"user": username}), &text);
    Ok(())
}

pub(super) async fn change_password(context: &Context, source: &PasswordSource) -> Result<(), Failure> {
    let [old, new] = password::read(context, source, ["Old password", "New password"], true)?;
    let request = pb::ChangePasswordRequest { old_password: old.to_string(), new_password: new.to_string() };
    context.daemon().await?.auth().change_password(request).await?;
    context.style.done(&json!({"changed": true}), "the new password stands; your other sessions have ended");
    Ok(())
}

pub(super) async fn login(context: &Context, mut credentials: Credentials) -> Result<(), Failure> {
    let password = password(context, &mut credentials, false)?.to_string();
    let daemon = context.daemon().await?;
    let request = pb::ControlServiceLoginRequest { username: credentials.user, password };
    let login = async || daemon.control().login(request.clone()).await;
    let answer = trust::first_used(context, &daemon, login).await?.into_inner();
    let object = json!({"user": answer.username, "peer_id": answer.peer_id});
    context.style.done(&object, &format!("{} is logged in", answer.username));
    Ok(())
}

pub(super) async fn logout(context: &Context, all: bool) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let request = pb::ControlServiceLogoutRequest { all };
    let answer = daemon.control().logout(request).await?.into_inner();
    let text = match (answer.tracker_unreachable, all) {
        (false, false) => "logged out; nothing is shared or downloaded any more",
        (false, true) => "logged out everywhere; nothing is shared or downloaded any more",
        (true, false) => "logged out here; the tracker could not be told, the session there ends by itself",
        (true, true) => "logged out here; the tracker could not be told, so sessions on other machines go on",
    };
    context.style.done(&json!({"tracker_unreachable": answer.tracker_unreachable}), text);
    Ok(())
}

pub(super) async fn whoami(context: &Context) -> Result<(), Failure> {
    let status = context.daemon().await?.control().get_status(pb::GetStatusRequest {}).await?.into_inner();
    if status.username.is_empty() {
        return Err(Failure::of(Reason::NotLoggedIn, "nobody is logged in; `peer login USER` first"));
    }
    let (object, _) = render::status(&status);
    context.style.result(&object, &status.username);
    Ok(())
}
