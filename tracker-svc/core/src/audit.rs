//! The content of the audit log: user, action, target, origin and result.

use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use domain::{FileName, GroupId, TokenName, Username};

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The account.
    pub user: Username,
    /// The token that acts for it. `None` for a session.
    pub token: Option<TokenName>,
}

impl From<Username> for Actor {
    fn from(user: Username) -> Self {
        Self { user, token: None }
    }
}

/// `USER`, or `USER/NAME` for a token. No username contains a slash.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            None => write!(f, "{}", self.user),
            Some(token) => write!(f, "{}/{token}", self.user),
        }
    }
}

/// The origin of a call: user, address and time. It goes into the audit row of whatever the call changes.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The account, once it is known. `None` for the operator and for callers that are not logged in.
    pub actor: Option<Actor>,
    /// The address that the call came from. `None` for the operator's commands.
    pub ip: Option<IpAddr>,
    /// The id of the call in logs and audit.
    pub request: Arc<str>,
    /// The time when the call arrived.
    pub at: SystemTime,
}

/// The object of an audit row about somebody in a group.
pub fn about(group: &GroupId, user: &Username) -> String {
    format!("{group}/{user}")
}

/// The object of an audit row about a file in a group.
pub fn about_file(group: &GroupId, name: &FileName) -> String {
    format!("{group}/{name}")
}

/// The object of an audit row about an invitation. It has the invitation's id, and not its secret.
pub fn about_invite(group: &GroupId, id: i64) -> String {
    format!("{group}#{id}")
}

/// The object of an audit row about a token: its name, and not its secret.
pub fn about_token(user: &Username, token: &TokenName) -> String {
    format!("{user}/{token}")
}

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// An action that was done or attempted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action { $($(#[doc = $doc])+ $name,)+ }

        impl Action {
            /// The name of the action in the log.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

actions! {
    /// An account was made.
    CreateUser = "create_user";
    /// A session was opened.
    Login = "login";
    /// A login was refused.
    LoginFailed = "login_failed";
    /// A session was ended by its user.
    Logout = "logout";
    /// All sessions were ended by their user.
    LogoutAll = "logout_all";
    /// A user set a new password.
    ChangePassword = "change_password";
    /// The operator set a new password.
    ResetPassword = "reset_password";
    /// The operator disabled an account.
    DisableUser = "disable_user";
    /// The operator enabled an account.
    EnableUser = "enable_user";
    /// A certificate was issued for a peer's key.
    IssuePeerCert = "issue_peer_cert";
    /// A group was made.
    CreateGroup = "create_group";
    /// A group was ended by its owner, or with its last member.
    DeleteGroup = "delete_group";
    /// A user asked to join.
    JoinGroup = "join_group";
    /// A user withdrew a request to join.
    WithdrawRequest = "withdraw_request";
    /// A request was accepted.
    AcceptRequest = "accept_request";
    /// A request was rejected.
    RejectRequest = "reject_request";
    /// An invitation was made.
    CreateInvite = "create_invite";
    /// An invitation was revoked.
    RevokeInvite = "revoke_invite";
    /// A user became a member by an invitation.
    JoinByInvite = "join_by_invite";
    /// A token for machines was made.
    CreateToken = "create_token";
    /// A token was revoked.
    RevokeToken = "revoke_token";
    /// A member left.
    LeaveGroup = "leave_group";
    /// A member was removed.
    RemoveMember = "remove_member";
    /// A member got another role.
    SetRole = "set_role";
    /// A group got another owner.
    TransferOwnership = "transfer_ownership";
    /// A file was listed.
    PublishFile = "publish_file";
    /// A file was unlisted, and other content was listed under its name.
    ReplaceFile = "replace_file";
    /// A file was unlisted.
    UnpublishFile = "unpublish_file";
    /// Tickets were signed.
    IssueTickets = "issue_tickets";
}
