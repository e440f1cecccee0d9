//! What is known about a download, and the verdicts about it.

/// A difference between the clocks, in seconds, from which on peers refuse each other.
pub(super) const CLOCK_OFF: u64 = 600;
/// The stage of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not started yet.
    #[default]
    Queued,
    /// Data arrives, or is about to.
    Running,
    /// Nothing arrives.
    Stalled,
    /// All pieces are there and are checked, or what an earlier run wrote is.
    Verifying,
    /// The file is in place.
    Complete,
    /// The user stopped it.
    Stopped,
    /// It failed.
    Failed,
}

/// The kind of a problem that the download itself has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk of the destination is full.
    DiskFull,
    /// The user is not a member of the group any more.
    NotAMember,
    /// The group does not have the file any more.
    FileGone,
    /// The tracker gives no ticket, or can't be reached.
    Tracker,
    /// Anything else, which the message says.
    Other,
}

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It sends.
    Sending,
    /// A request waits there, at this place if it is known.
    Waiting(Option<u32>),
    /// It is connected and has none of the missing pieces.
    NothingWanted,
    /// It is connected, and nothing is asked of it now.
    Idle,
    /// It is being connected.
    Connecting,
    /// It is not used: others are preferred, or it failed.
    Resting,
    /// It sent bad pieces.
    Banned,
}

impl Doing {
    /// It should send, or say at least at which place the request waits.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Sending | Self::Idle | Self::Waiting(None))
    }
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its user.
    pub user: String,
    /// Its present activity.
    pub doing: Doing,
    /// Bytes a second that arrive from it.
    pub rate: u64,
    /// Its own limit of all its uploads together, in bytes a second; 0 if it has none or did not say.
    pub limit: u64,
    /// The number of its uploads, this one included; 0 if it did not say.
    pub uploads: u32,
    /// Why it is of no use now, in words.
    pub trouble: Option<String>,
    /// The trouble is a clock.
    pub is_clock: bool,
}

/// All that is known about a download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Its stage.
    pub stage: Stage,
    /// Its own problem, with the words for it.
    pub trouble: Option<(Trouble, String)>,
    /// Bytes a second that arrive.
    pub rate: u64,
    /// This peer's download limit in bytes a second; 0 for none.
    pub limit: u64,
    /// How much of the time arriving bytes waited for the limit, in percent.
    pub limit_wait: u8,
    /// How much of the time arriving pieces waited for room to check them, in percent.
    pub check_wait: u8,
    /// How much of the time pieces were hashed, in percent.
    pub hashing: u8,
    /// How much of the time pieces were written, in percent.
    pub writing: u8,
    /// How much of the time this process used a processor, in percent; 100 also if it used several.
    pub own_cpu: u8,
    /// How much of the time some program of this machine waited for a processor, in percent; `None` if unknown.
    pub cpu_pressure: Option<u8>,
    /// Why the tracker can't be reached, if it can't.
    pub tracker_away: Option<String>,
    /// Seconds that the tracker's clock is ahead of this one.
    pub clock_offset: i64,
    /// The number of pieces that are missing.
    pub missing: u32,
    /// How many of these no connected source has.
    pub unheld: u32,
    /// The sources.
    pub sources: Vec<Source>,
}

/// The cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file is complete.
    Complete,
    /// The user stopped the download.
    Stopped,
    /// The user is not a member any more.
    MembershipEnded,
    /// The group has no such file any more.
    FileGone,
    /// It failed for another reason.
    Failed,
    /// The disk of the destination is full.
    DiskFull,
    /// What is there is being checked.
    Checking,
    /// It has just begun.
    Starting,
    /// A clock is off, here or at a source.
    ClockOff,
    /// The requests wait for upload slots of the sources.
    WaitingForSlot,
    /// Those who had the missing pieces are away.
    PiecesAway,
    /// The tracker is away, and no source can be used.
    TrackerAway,
    /// The sources can't be reached.
    Unreachable,
    /// Every source sent bad pieces.
    BadPieces,
    /// No source is online.
    NoSource,
    /// Connected sources send nothing.
    DeadLink,
    /// This peer's disk.
    OwnDisk,
    /// This machine's processor.
    OwnProcessor,
    /// This peer's download limit.
    OwnLimit,
    /// There is one source, which others use too.
    OnlySeeder,
    /// The uplinks of the sources.
    SourceUplink,
    /// The link is full, and nothing is wrong.
    LinkFull,
}

impl Verdict {
    /// The verdict as a word for programs. It never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::MembershipEnded => "membership_ended",
            Self::FileGone => "file_gone",
            Self::Failed => "failed",
            Self::DiskFull => "disk_full",
            Self::Checking => "checking",
            Self::Starting => "starting",
            Self::ClockOff => "clock_off",
            Self::WaitingForSlot => "waiting_for_slot",
            Self::PiecesAway => "pieces_away",
            Self::TrackerAway => "tracker_away",
            Self::Unreachable => "unreachable",
            Self::BadPieces => "bad_pieces",
            Self::NoSource => "no_source",
            Self::DeadLink => "dead_link",
            Self::OwnDisk => "own_disk",
            Self::OwnProcessor => "own_processor",
            Self::OwnLimit => "own_limit",
            Self::OnlySeeder => "only_seeder",
            Self::SourceUplink => "source_uplink",
            Self::LinkFull => "link_full",
        }
    }
}
