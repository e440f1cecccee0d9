//! Arguments as typed. What they mean together with environment and configuration file is [`super::resolve`]'s.

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
    /// The tracker [env: PEER_TRACKER] [default: https://127.0.0.1:7700]
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
    /// Give up after so long [env: PEER_TIMEOUT] [default: 30; none for what waits or follows]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub timeout: Option<String>,
    /// Which logs are written, as error, warn, info, debug or a filter [env: PEER_LOG]
    #[arg(long, global = true, value_name = "FILTER", hide_short_help = true)]
    pub log: Option<String>,
    /// text or json [env: PEER_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    pub log_format: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground, or stop the one that runs
    #[command(after_help = "Example: peer daemon --listen 0.0.0.0:7801 --upload-limit 5MiB")]
    Daemon(DaemonArgs),
    /// Make an account
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
    /// Log in, and take up your shares and unfinished downloads
    #[command(after_help = "Example: peer login alice")]
    Login(Credentials),
    /// Stop all sharing and downloading, and forget the session
    #[command(after_help = "Example: peer logout")]
    Logout,
    /// As logout, and end all your sessions on every machine
    #[command(alias = "logout_all", after_help = "Example: peer logout-all")]
    LogoutAll,
    /// Who is logged in
    #[command(after_help = "Example: peer whoami --json")]
    Whoami,
    /// What the daemon is and does; starts none
    #[command(after_help = "Example: peer status")]
    Status,
    /// Check everything a working peer needs, and name what is wrong
    #[command(after_help = "Example: peer doctor")]
    Doctor,
    /// Make a group that you own
    #[command(alias = "create_group", after_help = "Example: peer create-group g1")]
    CreateGroup(GroupName),
    /// List all groups
    #[command(alias = "list_groups", after_help = "Example: peer list-groups --mine")]
    ListGroups {
        /// Only those you own, are in, or asked to join
        #[arg(long)]
        mine: bool,
    },
    /// Ask to be let into a group
    #[command(alias = "join_group", after_help = "Example: peer join-group g1 --wait")]
    JoinGroup {
        /// The group
        group: String,
        /// Wait until the owner has answered
        #[arg(long)]
        wait: bool,
    },
    /// Leave a group; an owner's passes to its longest-standing member
    #[command(alias = "leave_group", after_help = "Example: peer leave-group g1")]
    LeaveGroup(GroupName),
    /// List who asks to be let in (owner)
    #[command(alias = "list_requests", after_help = "Example: peer list-requests g1")]
    ListRequests(GroupName),
    /// An older spelling of list-requests
    #[command(hide = true)]
    Requests {
        /// What to do with them
        #[command(subcommand)]
        verb: RequestsVerb,
    },
    /// Let somebody in (owner)
    #[command(alias = "accept_request", after_help = "Example: peer accept-request g1 bob")]
    AcceptRequest(GroupAndUser),
    /// Turn somebody away (owner)
    #[command(alias = "reject_request", after_help = "Example: peer reject-request g1 bob")]
    RejectRequest(GroupAndUser),
    /// List a group's members
    #[command(alias = "list_members", after_help = "Example: peer list-members g1")]
    ListMembers(GroupName),
    /// Put a member out (owner)
    #[command(alias = "remove_member", after_help = "Example: peer remove-member g1 bob")]
    RemoveMember(GroupAndUser),
    /// Hand a group to another member (owner)
    #[command(alias = "transfer_group", after_help = "Example: peer transfer-group g1 bob")]
    TransferGroup(GroupAndUser),
    /// End a group (owner)
    #[command(alias = "delete_group", after_help = "Example: peer delete-group g1")]
    DeleteGroup(GroupName),
    /// List a group's files
    #[command(alias = "list_files", after_help = "Example: peer list-files g1")]
    ListFiles(GroupName),
    /// Share a file with a group, from where it lies
    #[command(aliases = ["upload_file", "upload-file", "share"], after_help = "Example: peer upload movie.mp4 g1")]
    Upload {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// The group
        group: String,
        /// Its name in the group [default: the path's last part]
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a file out of a group (publisher or owner)
    #[command(after_help = "Example: peer unpublish g1 movie.mp4")]
    Unpublish(GroupFile),
    /// Download a file, then share it too
    #[command(
        aliases = ["download_file", "download-file"],
        after_help = "DEST is a directory, a path ending in / (made if missing), or the file's own path.\n\
                      Ctrl-C leaves the download running in the daemon; the same call again attaches to it.\n\
                      Example: peer download g1 movie.mp4 ./out/"
    )]
    Download {
        /// The group
        group: String,
        /// The file's name there
        name: String,
        /// Where to
        #[arg(value_hint = ValueHint::AnyPath)]
        dest: PathBuf,
        /// Return at once, leave the work to the daemon
        #[arg(short, long)]
        detach: bool,
        /// Pieces in order, for playing while it comes
        #[arg(long)]
        sequential: bool,
        /// At the end, read the whole again and check its SHA-1 and BLAKE3
        #[arg(long)]
        verify: bool,
    },
    /// Show all downloads
    #[command(
        alias = "show_downloads",
        after_help = "[D] downloading, [C] complete, [Q] queued, [V] verifying, [W] waiting (stalled), [S] stopped, [F] failed.\n\
                      Example: peer show-downloads --follow"
    )]
    ShowDownloads {
        /// Go on, showing what changes
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
    /// Take a stopped or failed download up again
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
        /// Where to; made if missing
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print a ticket for a file and who has it, for poking a peer with grpcurl
    #[command(after_help = "Example: peer ticket g1 movie.mp4 --json")]
    Ticket(GroupFile),
    /// Read verbs, one a line
    #[command(
        after_help = "Here create_user USER PASSWORD and login USER PASSWORD take the password too.\nExample: peer shell"
    )]
    Shell,
    /// Print a completion script
    #[command(
        after_help = "Example: peer completions bash > ~/.local/share/bash-completion/completions/peer"
    )]
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example: peer man > peer.1")]
    Man,
    /// What is configured, and where
    #[command(after_help = "Example: peer config show")]
    Config {
        /// What to do
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

/// `daemon`'s arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DaemonArgs {
    /// `daemon stop`
    #[command(subcommand)]
    pub verb: Option<DaemonVerb>,
    /// Where other peers connect to [env: PEER_LISTEN] [default: 0.0.0.0:0, a free port]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Host, or host:port, that other peers are told [env: PEER_ADVERTISE] [default: what the tracker sees]
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
    /// Bytes a second, 0 for no limit [env: PEER_UPLOAD_LIMIT]
    #[arg(long, value_name = "R")]
    pub upload_limit: Option<String>,
    /// Bytes a second, 0 for no limit [env: PEER_DOWNLOAD_LIMIT]
    #[arg(long, value_name = "R")]
    pub download_limit: Option<String>,
    /// Uploads at a time, at least, where the uplink isn't thin [env: PEER_UPLOAD_SLOTS] [default: 2]
    #[arg(long, value_name = "N")]
    pub upload_slots: Option<String>,
    /// Congestion control of uploads: auto (cubic if it can be had), system, or a name [env: PEER_CONGESTION] [default:
    /// auto]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub congestion: Option<String>,
    /// Makes what the picker leaves to chance repeatable [env: PEER_PICKER_SEED]
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
    /// Stop the daemon that runs, and wait until it has
    #[command(after_help = "Example: peer daemon stop")]
    Stop,
}

/// `requests`'s verbs.
#[derive(Debug, Subcommand)]
pub enum RequestsVerb {
    /// List who asks to be let in (owner)
    #[command(alias = "list_requests")]
    ListRequests(GroupName),
}

/// `config`'s verbs.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every setting: its value and where it came from
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

/// How a password comes, when it is not typed.
#[derive(Debug, Default, Args)]
pub struct PasswordSource {
    /// Read the password from standard input rather than asking [or name a file in PEER_PASSWORD_FILE]
    #[arg(long)]
    pub password_stdin: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_spelling_is_taken() {
        let lines = [
            "peer daemon --listen 127.0.0.1:0 --advertise a:1 --upload-limit 1K --download-limit 0 --metrics 127.0.0.1:0",
            "peer daemon stop",
            "peer create-user u",
            "peer create_user u",
            "peer change-password --password-stdin",
            "peer login u --password-stdin",
            "peer logout",
            "peer logout-all",
            "peer whoami",
            "peer status",
            "peer doctor",
            "peer create-group g",
            "peer create_group g",
            "peer list-groups --mine",
            "peer list_groups",
            "peer join-group g --wait",
            "peer join_group g",
            "peer leave-group g",
            "peer leave_group g",
            "peer list-requests g",
            "peer list_requests g",
            "peer requests list_requests g",
            "peer requests list-requests g",
            "peer accept-request g u",
            "peer accept_request g u",
            "peer reject-request g u",
            "peer reject_request g u",
            "peer list-members g",
            "peer remove-member g u",
            "peer transfer-group g u",
            "peer delete-group g",
            "peer list-files g",
            "peer list_files g",
            "peer upload p g --name n",
            "peer upload_file p g",
            "peer share p g",
            "peer unpublish g n",
            "peer download g n d -d --sequential --verify",
            "peer download_file g n d",
            "peer show-downloads --follow",
            "peer show_downloads",
            "peer stop-download g n --discard",
            "peer stop_download g n",
            "peer resume-download g n",
            "peer list-shares",
            "peer stop-share g n",
            "peer stop_share g n",
            "peer verify g n",
            "peer hash p",
            "peer limit --up 500K --down 1MiB",
            "peer export-cert d",
            "peer ticket g n",
            "peer shell",
            "peer completions bash",
            "peer man",
            "peer config show",
        ];
        for line in lines {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err().map(|error| error.to_string()));
        }
        for line in [
            "peer",
            "peer fly",
            "peer create-group",
            "peer download g n",
            "peer create-group g h",
            "peer daemon now",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn global_flags_stand_before_or_after_the_verb() {
        let all = "--home h --tracker https://t:1 --ca c --ca-sha256 f --json -q --no-autostart --timeout 5";
        for line in [format!("peer {all} list-groups"), format!("peer list-groups {all}")] {
            let global = parse(&line).expect("good").global;
            assert_eq!(global.home, Some("h".into()));
            assert_eq!(global.tracker.as_deref(), Some("https://t:1"));
            assert_eq!((global.ca.as_deref(), global.ca_sha256.as_deref()), (Some("c"), Some("f")));
            assert!(global.json && global.quiet && global.no_autostart);
            assert_eq!(global.timeout.as_deref(), Some("5"));
        }
    }

    #[test]
    fn every_verb_has_an_example() {
        for verb in
            Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example: peer "), "{}", verb.get_name());
        }
    }
}
