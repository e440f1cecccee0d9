//! Accounts and sessions.

use proto::{pb, reason::Reason};
use serde_json::json;

use super::leaving;
use crate::cli::{
    args::{Credentials, Leaving, LoginArgs, PasswordSource},
    context::Context,
    exit::Failure,
    link::Daemon,
    password::{self, Password},
    render, trust,
};

/// Gets the password for `login` and `create-user`. Only the shell accepts a password on the line itself.
async fn password(
    context: &Context,
    daemon: &Daemon,
    credentials: &mut Credentials,
    repeat: bool,
) -> Result<Password, Failure> {
    match credentials.password.take().map(Password::new) {
        Some(password) if context.in_shell => Ok(password),
        Some(_) => Err(Failure::usage(
            "a password on the command line can be read by everybody on this machine: change it if it is in use, and \
             give it by prompt, --password-stdin or PEER_PASSWORD_FILE",
        )),
        None => {
            if password::is_typed(&credentials.source) {
                // Nobody should type a password for a tracker that is not the right one.
                let request = pb::GetTrackerKeysRequest {};
                trust::first_used(context, daemon, async || daemon.auth().get_tracker_keys(request).await)
                    .await?;
            }
            let prompt = format!("Password of {}", render::name(&credentials.user));
            let [password] = password::read(context, &credentials.source, [&prompt], repeat).await?;
            Ok(password)
        }
    }
}

pub(super) async fn create_user(context: &Context, mut credentials: Credentials) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let password = password(context, &daemon, &mut credentials, true).await?.to_string();
    let username = credentials.user;
    let request = pb::CreateUserRequest { username: username.clone(), password, invite: None };
    trust::first_used(context, &daemon, async || daemon.auth().create_user(request.clone()).await).await?;
    let text = format!("the account {username} was created; log in with `peer login {username}`");
    context.style.done(&json!({"user": username}), &text);
    Ok(())
}

pub(super) async fn change_password(context: &Context, source: &PasswordSource) -> Result<(), Failure> {
    let [old, new] = password::read(context, source, ["Old password", "New password"], true).await?;
    let request = pb::ChangePasswordRequest { old_password: old.to_string(), new_password: new.to_string() };
    context.daemon().await?.auth().change_password(request).await?;
    context.style.done(&json!({"changed": true}), "the password was changed; your other sessions have ended");
    Ok(())
}

pub(super) async fn login(context: &Context, args: LoginArgs) -> Result<(), Failure> {
    let LoginArgs { user, password: typed, source, token_stdin, new_key } = args;
    let daemon = context.daemon().await?;
    let request = match user {
        Some(user) => {
            let mut credentials = Credentials { user, password: typed, source };
            let password = password(context, &daemon, &mut credentials, false).await?.to_string();
            pb::ControlServiceLoginRequest {
                username: credentials.user,
                password,
                new_key,
                ..Default::default()
            }
        }
        None => {
            let token = password::read_token(context, token_stdin)?.to_string();
            pb::ControlServiceLoginRequest { token, new_key, ..Default::default() }
        }
    };
    let login = async || daemon.control().login(request.clone()).await;
    let answer = trust::first_used(context, &daemon, login).await?.into_inner();
    let token = Some(&answer.token_name).filter(|name| !name.is_empty());
    let object = json!({"user": answer.username, "token": token, "peer_id": answer.peer_id});
    context
        .style
        .done(&object, &format!("{} is logged in", render::who(&answer.username, &answer.token_name)));
    Ok(())
}

pub(super) async fn logout(context: &Context, all: bool, leaving: &Leaving) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    leaving::check(context, &daemon, leaving, None, None).await?;
    let request = pb::ControlServiceLogoutRequest { all };
    let answer = daemon.control().logout(request).await?.into_inner();
    let text = match (answer.tracker_unreachable, all) {
        _ if answer.session_shared => {
            "logged out here; another daemon uses the same key and session and continues, and `peer logout-all` \
             ends its session too"
        }
        (false, false) => "logged out; all sharing and downloading has stopped",
        (false, true) => "logged out on all machines; all sharing and downloading has stopped",
        (true, false) => {
            "logged out here; the tracker could not be reached, so its session ends only when it expires"
        }
        (true, true) => {
            "logged out here; the tracker could not be reached, so sessions on other machines continue"
        }
    };
    context.style.done(
        &json!({
            "tracker_unreachable": answer.tracker_unreachable,
            "session_shared": answer.session_shared,
        }),
        text,
    );
    Ok(())
}

pub(super) async fn whoami(context: &Context) -> Result<(), Failure> {
    let status = context.daemon().await?.control().get_status(pb::GetStatusRequest {}).await?.into_inner();
    if status.username.is_empty() {
        return Err(Failure::of(Reason::NotLoggedIn, "nobody is logged in; log in with `peer login USER`"));
    }
    let (object, _) = render::status(&status);
    context.style.result(&object, &render::who(&status.username, &status.token_name));
    Ok(())
}
