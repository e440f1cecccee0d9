//! The arguments as typed. [`super::resolve`] combines them with the environment and the configuration file.

mod parts;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub use self::parts::{
    ConfigVerb, Credentials, DaemonArgs, DaemonVerb, DownloadOptions, GroupAndUser, GroupFile, GroupName,
    Guest, InviteArgs, Leaving, LoginArgs, PasswordSource, RequestsVerb, TokenArgs, UploadOptions,
};

/// Shares files within groups and downloads them from many peers at once.
#[derive(Debug, Parser)]
#[command(
    name = "peer",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = "A daemon that holds shares and downloads starts by itself when a verb needs it.\n\
                  Example: peer --home alice create-user alice"
)]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that may stand before or after the verb.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of this peer's state [env: PEER_HOME] [default: the XDG directories]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
    /// Configuration file [env: PEER_CONFIG] [default: config.toml in the home]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The network's tracker, or several with commas between them, or a file with one a line [env: PEER_TRACKER]
    /// [default: https://127.0.0.1:7700]
    #[arg(long, global = true, value_name = "URL")]
    pub tracker: Option<String>,
    /// The tracker's CA certificate, as its ca.pem [env: PEER_CA]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<String>,
    /// SHA-256 of the tracker's CA certificate, instead of the file [env: PEER_CA_SHA256]
    #[arg(long, global = true, value_name = "FP")]
    pub ca_sha256: Option<String>,
    /// Print JSON [env: PEER_JSON]
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only [env: PEER_QUIET]
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Never start a daemon; exit 10 if there is none [env: PEER_NO_AUTOSTART]
    #[arg(long, global = true)]
    pub no_autostart: bool,
    /// Time limit of the verb [env: PEER_TIMEOUT] [default: 30; none for what waits or follows]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub timeout: Option<String>,
    /// Which log messages are written: error, warn, info, debug or a filter [env: PEER_LOG]
    #[arg(long, global = true, value_name = "FILTER", hide_short_help = true)]
    pub log: Option<String>,
    /// Format of the logs: text or json [env: PEER_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    pub log_format: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print a link to the page of this peer, and open it on a desktop
    #[command(
        after_help = "The link works once, for five minutes. The browser then stays logged in for twelve hours. Other \
                      hosts are served over TLS.\n\
                      Example: peer ui"
    )]
    Ui {
        /// Address and port of the page [default: a free port of 127.0.0.1]
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Don't open a browser
        #[arg(long)]
        no_open: bool,
    },
    /// Run the daemon in the foreground, or stop the one that runs
    #[command(after_help = "Example: peer daemon --listen [::]:7801 --upload-limit 5MiB")]
    Daemon(DaemonArgs),
    /// Create an account
    #[command(
        alias = "create_user",
        after_help = "Example: peer create-user alice --password-stdin < alice.password"
    )]
    CreateUser(Credentials),
    /// Set a new password; it ends all your other sessions
    #[command(
        alias = "change_password",
        after_help = "With --password-stdin or PEER_PASSWORD_FILE: the old password in the first line, the new one in the second.\n\
                      Example: peer change-password"
    )]
    ChangePassword(PasswordSource),
    /// Log in, and resume your shares and unfinished downloads
    #[command(
        after_help = "A machine logs in with a token of create-token, and names no user.\nExample: peer login alice"
    )]
    Login(LoginArgs),
    /// Stop all sharing and downloading, and forget the session
    #[command(after_help = "Example: peer logout")]
    Logout(Leaving),
    /// Log out, and end all your sessions on every machine
    #[command(alias = "logout_all", after_help = "Example: peer logout-all")]
    LogoutAll(Leaving),
    /// Make a token, with which a machine logs in as you; it is shown once
    #[command(
        alias = "create_token",
        after_help = "read downloads and serves; share also publishes; manage also accepts, removes and invites members.\n\
                      Example: peer create-token ci --group g1 --allow share --expires 30d > ci.token"
    )]
    CreateToken(TokenArgs),
    /// List your tokens, without their secrets
    #[command(alias = "list_tokens", after_help = "Example: peer list-tokens")]
    ListTokens,
    /// Revoke a token; the machines that use it are logged out
    #[command(alias = "revoke_token", after_help = "Example: peer revoke-token ci")]
    RevokeToken {
        /// Its name, as in list-tokens
        token: String,
    },
    /// Show who is logged in
    #[command(after_help = "Example: peer whoami --json")]
    Whoami,
    /// Show the state of the daemon; never starts one
    #[command(after_help = "Example: peer status")]
    Status,
    /// Check everything that a working peer needs, and report problems
    #[command(after_help = "Example: peer doctor")]
    Doctor,
    /// Create a group that you own
    #[command(alias = "create_group", after_help = "Example: peer create-group g1")]
    CreateGroup(GroupName),
    /// List all groups
    #[command(alias = "list_groups", after_help = "Example: peer list-groups --mine")]
    ListGroups {
        /// Only groups that you own, are a member of, or have requested to join
        #[arg(long)]
        mine: bool,
    },
    /// Request membership in a group
    #[command(alias = "join_group", after_help = "Example: peer join-group g1 --wait")]
    JoinGroup {
        /// The group
        group: String,
        /// Wait until the owner has answered
        #[arg(long)]
        wait: bool,
    },
    /// Leave a group; if you own it, its longest-standing member becomes the owner
    #[command(alias = "leave_group", after_help = "Example: peer leave-group g1")]
    LeaveGroup {
        /// Which
        #[command(flatten)]
        group: GroupName,
        /// What to do about the others
        #[command(flatten)]
        leaving: Leaving,
    },
    /// List the requests to join a group (owner, managers)
    #[command(alias = "list_requests", after_help = "Example: peer list-requests g1")]
    ListRequests(GroupName),
    /// An older spelling of list-requests
    #[command(hide = true)]
    Requests {
        /// What to do with them
        #[command(subcommand)]
        verb: RequestsVerb,
    },
    /// Accept a request to join a group (owner, managers)
    #[command(alias = "accept_request", after_help = "Example: peer accept-request g1 bob")]
    AcceptRequest(GroupAndUser),
    /// Reject a request to join a group (owner, managers)
    #[command(alias = "reject_request", after_help = "Example: peer reject-request g1 bob")]
    RejectRequest(GroupAndUser),
    /// List a group's members
    #[command(alias = "list_members", after_help = "Example: peer list-members g1")]
    ListMembers(GroupName),
    /// Remove a member from a group (owner, managers)
    #[command(alias = "remove_member", after_help = "Example: peer remove-member g1 bob")]
    RemoveMember(GroupAndUser),
    /// Make another member the owner of a group (owner)
    #[command(alias = "transfer_group", after_help = "Example: peer transfer-group g1 bob")]
    TransferGroup(GroupAndUser),
    /// Make a member a reader, a member or a manager (owner)
    #[command(
        alias = "set_role",
        after_help = "A reader downloads and serves, and publishes nothing. A manager also accepts, removes and invites others.\n\
                      Example: peer set-role g1 bob manager"
    )]
    SetRole {
        /// Who
        #[command(flatten)]
        who: GroupAndUser,
        /// What
        #[arg(value_parser = ["reader", "member", "manager"])]
        role: String,
    },
    /// Delete a group (owner)
    #[command(alias = "delete_group", after_help = "Example: peer delete-group g1")]
    DeleteGroup(GroupName),
    /// Print a link that makes whoever has it a member of a group (owner, managers)
    #[command(
        after_help = "The link names the tracker, its CA and the group, and contains a secret: give it to the right people only.\n\
                      Example: peer invite g1 --uses 30 --expires 2d --file movie.mp4"
    )]
    Invite(InviteArgs),
    /// List a group's invitations, without their secrets (owner, managers)
    #[command(alias = "list_invites", after_help = "Example: peer list-invites g1")]
    ListInvites(GroupName),
    /// Revoke an invitation; members that used it stay (owner, managers)
    #[command(alias = "revoke_invite", after_help = "Example: peer revoke-invite g1 7")]
    RevokeInvite {
        /// The group
        group: String,
        /// Its id, as in list-invites
        id: String,
    },
    /// Join a group by an invitation's link: makes the account, or logs in
    #[command(
        after_help = "Example: peer join 'minitorrent://files.example.org:7700/g1#FINGERPRINT.SECRET' --user alice"
    )]
    Join(Guest),
    /// Join by an invitation's link, and download the file that it names
    #[command(
        after_help = "Example: peer get 'minitorrent://files.example.org:7700/g1/movie.mp4#FINGERPRINT.SECRET' ./out/ --user alice"
    )]
    Get {
        /// The link and the user
        #[command(flatten)]
        guest: Guest,
        /// The destination, as of download
        #[arg(value_hint = ValueHint::AnyPath, default_value = ".")]
        dest: PathBuf,
    },
    /// List a group's files, or what is in one of its folders
    #[command(alias = "list_files", after_help = "Example: peer list-files g1")]
    ListFiles {
        /// The group
        group: String,
        /// A folder of the group
        name: Option<String>,
        /// Only files with fewer complete copies online than --copies
        #[arg(long, conflicts_with = "name")]
        at_risk: bool,
        /// How many copies are enough [default: 2]
        #[arg(long, value_name = "N", requires = "at_risk")]
        copies: Option<u32>,
    },
    /// Share files and folders with a group, from where they lie
    #[command(
        aliases = ["upload_file", "upload-file", "share"],
        override_usage = "peer upload [OPTIONS] <PATH>... <GROUP>",
        after_help = "Example: peer upload movie.mp4 g1"
    )]
    Upload {
        /// A file or folder, which becomes an entry of the group
        #[arg(value_hint = ValueHint::AnyPath)]
        path: PathBuf,
        /// More files and folders, and last the group
        #[arg(id = "group", value_name = "GROUP", value_hint = ValueHint::AnyPath, required = true, num_args = 1..)]
        rest: Vec<PathBuf>,
        /// How to share them
        #[command(flatten)]
        options: UploadOptions,
    },
    /// Share the files that appear in a directory, once they have stopped changing, until Ctrl-C
    #[command(
        after_help = "Only regular files directly in the directory count, and no names that begin with a dot.\n\
                      Example: peer watch ./builds/ g1 --replace"
    )]
    Watch {
        /// The directory
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// The group
        group: String,
        /// What is there already, too
        #[arg(long)]
        existing: bool,
        /// A file that changes takes the place of what has its name (its publisher, or the group's owner)
        #[arg(long)]
        replace: bool,
    },
    /// Remove a file from a group (publisher or owner)
    #[command(after_help = "Example: peer unpublish g1 movie.mp4")]
    Unpublish(GroupFile),
    /// Download files, then share them too
    #[command(
        aliases = ["download_file", "download-file"],
        override_usage = "peer download [OPTIONS] <GROUP> <NAME> [DEST]\n       \
                          peer download [OPTIONS] <GROUP> <NAME>... <DIR>\n       \
                          peer download [OPTIONS] <GROUP> --all|--match <GLOB> [DIR]",
        after_help = "DEST is a directory, a path ending in / (made if missing), or the file's own path; the current directory if \
                      it is left out. Several files need a directory.\n\
                      Ctrl-C leaves the download running in the daemon; the same call again attaches to it.\n\
                      Example: peer download g1 movie.mp4 ./out/"
    )]
    Download {
        /// The group
        group: String,
        /// The file's name there
        #[arg(value_hint = ValueHint::AnyPath)]
        name: Option<PathBuf>,
        /// More names, and last the destination
        #[arg(id = "names", value_name = "DEST", value_hint = ValueHint::AnyPath, num_args = 1..)]
        rest: Vec<PathBuf>,
        /// Which files, and how to download them
        #[command(flatten)]
        options: DownloadOptions,
    },
    /// Bring this peer's copy to the current version, taking what is equal from the copy
    #[command(
        after_help = "The copy stays as it is until the new version is whole, and is then replaced in one step.\n\
                      Example: peer update g1 dataset"
    )]
    Update {
        /// Which
        #[command(flatten)]
        file: GroupFile,
        /// Say what would be fetched and what would be taken from the copy, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Return at once; the daemon continues the update
        #[arg(short, long)]
        detach: bool,
    },
    /// Show all downloads
    #[command(
        alias = "show_downloads",
        after_help = "[D] downloading, [C] complete, [Q] queued, [V] verifying, [W] waiting (stalled), [S] stopped, [F] failed.\n\
                      The map of the pieces: # has all of that range, + : . some, a blank none.\n\
                      Example: peer show-downloads --follow"
    )]
    ShowDownloads {
        /// Keep running, and show changes
        #[arg(long, short)]
        follow: bool,
    },
    /// Write a file to standard output, also while it is being downloaded
    #[command(
        after_help = "Only verified bytes are written, in order. What has not arrived yet is fetched first.\n\
                      NAME/PATH is a file of a folder.\n\
                      Example: peer cat g1 movie.mp4 --offset 1000000 | mpv -"
    )]
    Cat {
        /// Which
        #[command(flatten)]
        file: GroupFile,
        /// The first byte
        #[arg(long, value_name = "N", default_value_t = 0)]
        offset: u64,
        /// How many bytes [default: all up to the end]
        #[arg(long, value_name = "N")]
        length: Option<u64>,
    },
    /// Download what is published in a group from now on, by itself
    #[command(
        after_help = "Only the daemon has to run. The same call again with other options replaces the subscription.\n\
                      Example: peer subscribe g1 ./films/ --match '*.mp4'"
    )]
    Subscribe {
        /// The group
        group: String,
        /// The directory that the files go to; made if missing
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Only files whose names match: a pattern as in a gitignore file. Repeatable
        #[arg(long = "match", value_name = "GLOB")]
        matching: Vec<String>,
        /// What is published already, too
        #[arg(long)]
        existing: bool,
        /// New versions of the files, too: brings the copies up to date in their place
        #[arg(long)]
        update: bool,
        /// Run this after each download, without a shell; last on the line. MINITORRENT_EVENT, _GROUP, _NAME and _PATH say what it is about
        #[arg(long, value_names = ["CMD", "ARG"], num_args = 1.., allow_hyphen_values = true)]
        exec: Vec<String>,
    },
    /// List your subscriptions
    #[command(alias = "list_subscriptions", after_help = "Example: peer list-subscriptions")]
    ListSubscriptions,
    /// End a subscription; its downloads go on
    #[command(after_help = "Example: peer unsubscribe g1")]
    Unsubscribe(GroupName),
    /// Say why a download is as fast as it is: one verdict, then the evidence
    #[command(after_help = "Example: peer explain g1 movie.mp4")]
    Explain(GroupFile),
    /// Show who has how much of a file
    #[command(after_help = "Example: peer who g1 movie.mp4 --follow")]
    Who {
        /// Which
        #[command(flatten)]
        file: GroupFile,
        /// Keep running, and show changes
        #[arg(long, short)]
        follow: bool,
    },
    /// Stop a download, keeping its verified pieces
    #[command(alias = "stop_download", after_help = "Example: peer stop-download g1 movie.mp4")]
    StopDownload {
        /// Which
        #[command(flatten)]
        file: GroupFile,
        /// Delete what was downloaded so far
        #[arg(long)]
        discard: bool,
        /// What to do about the others
        #[command(flatten)]
        leaving: Leaving,
    },
    /// Remove finished downloads from the list; files and shares stay
    #[command(alias = "clear_downloads", after_help = "Example: peer clear-downloads")]
    ClearDownloads,
    /// Resume a stopped or failed download
    #[command(alias = "resume_download", after_help = "Example: peer resume-download g1 movie.mp4")]
    ResumeDownload(GroupFile),
    /// List what this peer shares
    #[command(alias = "list_shares", after_help = "Example: peer list-shares")]
    ListShares,
    /// Stop sharing a file from this peer; it stays on disk
    #[command(alias = "stop_share", after_help = "Example: peer stop-share g1 movie.mp4")]
    StopShare {
        /// Which
        #[command(flatten)]
        file: GroupFile,
        /// What to do about the others
        #[command(flatten)]
        leaving: Leaving,
    },
    /// Read this peer's copy again and check all of it
    #[command(after_help = "Example: peer verify g1 movie.mp4")]
    Verify(GroupFile),
    /// Hash a file as sharing it would; offline
    #[command(after_help = "Example: peer hash movie.mp4")]
    Hash {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
    },
    /// Set the rate limits, in bytes a second
    #[command(after_help = "Example: peer limit --up 500K --down 0")]
    Limit {
        /// Upload limit; 0 for none
        #[arg(long, value_name = "R")]
        up: Option<String>,
        /// Download limit; 0 for none
        #[arg(long, value_name = "R")]
        down: Option<String>,
    },
    /// Write this peer's certificate and key to DIR, for grpcurl's -cert and -key
    #[command(alias = "export_cert", after_help = "Example: peer export-cert ./certs")]
    ExportCert {
        /// The directory; created if missing
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print a ticket for a file and its sources, to call a peer with grpcurl
    #[command(after_help = "Example: peer ticket g1 movie.mp4 --json")]
    Ticket(GroupFile),
    /// Read verbs, one on each line
    #[command(
        after_help = "Here create_user USER PASSWORD and login USER PASSWORD take the password too.\nExample: peer shell"
    )]
    Shell,
    /// Print a completion script
    #[command(
        after_help = "Example: peer completions bash > ~/.local/share/bash-completion/completions/peer"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example: peer man > peer.1")]
    Man,
    /// Show the configuration
    #[command(after_help = "Example: peer config show")]
    Config {
        /// What to do
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

#[cfg(test)]
mod tests;
