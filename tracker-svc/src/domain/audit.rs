//! What the audit log says: who did what to what, from where, with which result.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use proto::domain::Username;

/// Who asks, from where, and when: goes into the audit row of whatever the call changes.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The account, once it is known; none for the operator and for those who are not logged in.
    pub actor: Option<Username>,
    /// The address that the call came from; none for the operator's commands.
    pub ip: Option<IpAddr>,
    /// Names the call in logs and audit.
    pub request: Arc<str>,
    /// When the call came in.
    pub at: SystemTime,
}

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// What was done, or tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action { $($(#[doc = $doc])+ $name,)+ }

        impl Action {
            /// The action as the log names it.
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
    /// A peer's key was certified.
    IssuePeerCert = "issue_peer_cert";
    /// A group was made.
    CreateGroup = "create_group";
    /// A group was ended by its owner, or with its last member.
    DeleteGroup = "delete_group";
    /// Somebody asked to be let in.
    JoinGroup = "join_group";
    /// Somebody withdrew their request.
    WithdrawRequest = "withdraw_request";
    /// A request was accepted.
    AcceptRequest = "accept_request";
    /// A request was rejected.
    RejectRequest = "reject_request";
    /// A member left.
    LeaveGroup = "leave_group";
    /// A member was put out.
    RemoveMember = "remove_member";
    /// A group got another owner.
    TransferOwnership = "transfer_ownership";
    /// A file was listed.
    PublishFile = "publish_file";
    /// A file was unlisted.
    UnpublishFile = "unpublish_file";
    /// Tickets were signed.
    IssueTickets = "issue_tickets";
}
