//! The arguments as typed. [`super::resolve`] combines them with the environment and the configuration file.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

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
    /// Print a link to the page of this peer, for a browser on this machine
    #[command(
        after_help = "The link works once, for five minutes. The browser then stays logged in for twelve hours.\n\
                      Example: peer ui"
    )]
    Ui {
        /// Address and port of the page [default: a free port of 127.0.0.1]
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
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
    #[command(after_help = "Example: peer login alice")]
    Login(LoginArgs),
    /// Stop all sharing and downloading, and forget the session
    #[command(after_help = "Example: peer logout")]
    Logout,
    /// Log out, and end all your sessions on every machine
    #[command(alias = "logout_all", after_help = "Example: peer logout-all")]
    LogoutAll,
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
    LeaveGroup(GroupName),
    /// List the requests to join a group (owner)
    #[command(alias = "list_requests", after_help = "Example: peer list-requests g1")]
    ListRequests(GroupName),
    /// An older spelling of list-requests
    #[command(hide = true)]
    Requests {
        /// What to do with them
        #[command(subcommand)]
        verb: RequestsVerb,
    },
    /// Accept a request to join a group (owner)
    #[command(alias = "accept_request", after_help = "Example: peer accept-request g1 bob")]
    AcceptRequest(GroupAndUser),
    /// Reject a request to join a group (owner)
    #[command(alias = "reject_request", after_help = "Example: peer reject-request g1 bob")]
    RejectRequest(GroupAndUser),
    /// List a group's members
    #[command(alias = "list_members", after_help = "Example: peer list-members g1")]
    ListMembers(GroupName),
    /// Remove a member from a group (owner)
    #[command(alias = "remove_member", after_help = "Example: peer remove-member g1 bob")]
    RemoveMember(GroupAndUser),
    /// Make another member the owner of a group (owner)
    #[command(alias = "transfer_group", after_help = "Example: peer transfer-group g1 bob")]
    TransferGroup(GroupAndUser),
    /// Delete a group (owner)
    #[command(alias = "delete_group", after_help = "Example: peer delete-group g1")]
    DeleteGroup(GroupName),
    /// Print a link that makes whoever has it a member of a group (owner)
    #[command(
        after_help = "The link names the tracker, its CA and the group, and contains a secret: give it to the right people only.\n\
                      Example: peer invite g1 --uses 30 --expires 2d --file movie.mp4"
    )]
    Invite(InviteArgs),
    /// List a group's invitations, without their secrets (owner)
    #[command(alias = "list_invites", after_help = "Example: peer list-invites g1")]
    ListInvites(GroupName),
    /// Revoke an invitation; members that used it stay (owner)
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
    StopShare(GroupFile),
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

/// `invite`'s arguments.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The group
    pub group: String,
    /// How many accounts may use it, up to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub uses: Option<u32>,
    /// How long it may be used, such as 90m, 12h or 2d; up to 90d [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// A file of the group, which `peer get` then downloads
    #[arg(long, value_name = "NAME")]
    pub file: Option<String>,
    /// Print the link as a QR code too
    #[arg(long)]
    pub qr: bool,
}

/// An invitation's link, and who uses it.
#[derive(Debug, Args)]
pub struct Guest {
    /// The link; quote it, because of its #
    pub link: String,
    /// Your account's name; it is made if there is none [default: who is logged in, else it is asked for]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// How the password comes.
    #[command(flatten)]
    pub source: PasswordSource,
}

/// The options of `upload`.
#[derive(Debug, Clone, Args)]
pub struct UploadOptions {
    /// Its name in the group [default: the path's last part]
    #[arg(long)]
    pub name: Option<String>,
    /// Take the place of other content that has the name (its publisher, or the group's owner)
    #[arg(long)]
    pub replace: bool,
    /// Leave this out of a folder: a pattern as in a gitignore file. Repeatable
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Leave out of a folder what can't be shared, instead of refusing the folder
    #[arg(long)]
    pub skip_unsupported: bool,
}

/// The options of `download`.
#[derive(Debug, Clone, Default, Args)]
pub struct DownloadOptions {
    /// Download all files of the group
    #[arg(long)]
    pub all: bool,
    /// Download the files whose names match: a pattern as in a gitignore file. Repeatable
    #[arg(long = "match", value_name = "GLOB", conflicts_with = "all")]
    pub matching: Vec<String>,
    /// Download a part of a folder: a pattern as in a gitignore file. Repeatable; a later call adds to it
    #[arg(long, value_name = "GLOB", conflicts_with = "repair")]
    pub only: Vec<String>,
    /// Return at once; the daemon continues the download
    #[arg(short, long)]
    pub detach: bool,
    /// Download the pieces in order, to play the file while it arrives
    #[arg(long)]
    pub sequential: bool,
    /// Read the whole file again at the end, and check its SHA-1 and BLAKE3
    #[arg(long)]
    pub verify: bool,
    /// Repair the file at the destination: check it, and download only its bad pieces
    #[arg(long)]
    pub repair: bool,
}

/// `daemon`'s arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DaemonArgs {
    /// `daemon stop`
    #[command(subcommand)]
    pub verb: Option<DaemonVerb>,
    /// Where other peers connect to [env: PEER_LISTEN] [default: a free port of IPv4 and IPv6]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Host, or host:port, that other peers are told; up to four [env: PEER_ADVERTISE] [default: this host's addresses
    /// and the one that the tracker sees]
    #[arg(long, value_name = "ADDR")]
    pub advertise: Vec<String>,
    /// Bytes a second, 0 for no limit [env: PEER_UPLOAD_LIMIT]
    #[arg(long, value_name = "R")]
    pub upload_limit: Option<String>,
    /// Bytes a second, 0 for no limit [env: PEER_DOWNLOAD_LIMIT]
    #[arg(long, value_name = "R")]
    pub download_limit: Option<String>,
    /// Least number of simultaneous uploads, unless the uplink is slow [env: PEER_UPLOAD_SLOTS] [default: 2]
    #[arg(long, value_name = "N")]
    pub upload_slots: Option<String>,
    /// Congestion control of uploads: auto (cubic if it can be had), system, or a name [env: PEER_CONGESTION] [default:
    /// auto]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub congestion: Option<String>,
    /// Seed of the picker's random choices [env: PEER_PICKER_SEED]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub picker_seed: Option<String>,
    /// Serve Prometheus metrics here [env: PEER_METRICS]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<String>,
    /// Started by a verb: leave its terminal
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `daemon`'s verbs.
#[derive(Debug, Subcommand)]
pub enum DaemonVerb {
    /// Stop the running daemon, and wait until it has ended
    #[command(after_help = "Example: peer daemon stop")]
    Stop,
}

/// `requests`'s verbs.
#[derive(Debug, Subcommand)]
pub enum RequestsVerb {
    /// List the requests to join a group (owner)
    #[command(alias = "list_requests")]
    ListRequests(GroupName),
}

/// `config`'s verbs.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Show every setting, its value and its origin
    #[command(after_help = "Example: peer config show --json")]
    Show,
}

/// A group.
#[derive(Debug, Args)]
pub struct GroupName {
    /// The group
    pub group: String,
}

/// A group and a user.
#[derive(Debug, Args)]
pub struct GroupAndUser {
    /// The group
    pub group: String,
    /// The user
    pub user: String,
}

/// A file of a group.
#[derive(Debug, Args)]
pub struct GroupFile {
    /// The group
    pub group: String,
    /// The file's name there
    pub name: String,
}

/// A user and how their password comes.
#[derive(Debug, Args)]
pub struct Credentials {
    /// The account's name
    pub user: String,
    /// In the shell only: a command line can be read by everybody
    #[arg(hide = true)]
    pub password: Option<String>,
    /// How else the password comes.
    #[command(flatten)]
    pub source: PasswordSource,
}

/// `login`'s arguments.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The account
    #[command(flatten)]
    pub credentials: Credentials,
    /// Make a new key, so that this home becomes another peer: for a copy of a home that is in use elsewhere
    #[arg(long)]
    pub new_key: bool,
}

/// How a password comes, when it is not typed.
#[derive(Debug, Default, Args)]
pub struct PasswordSource {
    /// Read the password from standard input rather than asking [or name a file in PEER_PASSWORD_FILE]
    #[arg(long)]
    pub password_stdin: bool,
}
