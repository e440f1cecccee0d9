//! The arguments of single verbs, and those that several verbs share.

use clap::{Args, Subcommand};

/// What a verb that ends sharing does about those who fetch from this peer.
#[derive(Clone, Debug, Default, Args)]
pub struct Leaving {
    /// Go on even if others lose the only copy of what they are fetching [env: PEER_YES]
    #[arg(long)]
    pub yes: bool,
    /// Wait until others have complete copies of what they are fetching from here
    #[arg(long, conflicts_with = "yes")]
    pub drain: bool,
    /// How many complete copies --drain waits for [default: 1]
    #[arg(long, value_name = "N", requires = "drain")]
    pub copies: Option<u32>,
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
    /// Run this when the download is complete or has failed, without a shell; last on the line. MINITORRENT_EVENT, _GROUP, _NAME and _PATH
    /// say what it is about
    #[arg(long, value_names = ["CMD", "ARG"], num_args = 1.., allow_hyphen_values = true)]
    pub exec: Vec<String>,
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
    Stop(Leaving),
}

/// `requests`'s verbs.
#[derive(Debug, Subcommand)]
pub enum RequestsVerb {
    /// List the requests to join a group (owner, managers)
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

/// `create-token`'s arguments.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The token's name among yours; others see your machine as USER/NAME
    pub token: String,
    /// A group that it is for. Repeatable [default: all your groups]
    #[arg(long = "group", value_name = "G")]
    pub groups: Vec<String>,
    /// What it may do
    #[arg(long, value_name = "LEVEL", default_value = "read", value_parser = ["read", "share", "manage"])]
    pub allow: String,
    /// How long it may be used, such as 12h or 30d; up to 366d [default: 90d]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
}

/// `login`'s arguments.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The account's name; none for a token
    pub user: Option<String>,
    /// In the shell only: a command line can be read by everybody
    #[arg(hide = true)]
    pub password: Option<String>,
    /// How else the password comes.
    #[command(flatten)]
    pub source: PasswordSource,
    /// Read a token of create-token from standard input [or name a file in PEER_TOKEN_FILE]
    #[arg(long, conflicts_with_all = ["user", "password_stdin"])]
    pub token_stdin: bool,
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
