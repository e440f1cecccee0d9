//! What an engine remembers over restarts. It keeps the keys that verify tickets, the groups' epochs and the
//! tracker's clock, so that it serves members, and no removed members, while the tracker is away. It also
//! keeps the peers that sent bad pieces.
//!
//! There is one small file for each authority, because another tracker's groups of the same names have their
//! own epochs. Keys and epochs are in one file on purpose. A peer that loses the epochs then loses the keys
//! too, and serves nobody until the tracker has sent both again.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use program::durable::{self, Readers};
use proto::{
    domain::{GroupId, Name as _, PeerId, Username},
    ticket::VerifyingKey,
};
use serde::{Deserialize, Serialize};
use transport::AuthorityFingerprint;

/// How long a peer that sent bad pieces is banned.
const BAN: Duration = Duration::from_hours(1);
/// A user with this many peers banned at the same time is banned with all peers, later ones included. Each
/// peer is a key, and a user may have a new key certified whenever one is banned. One banned peer is too few,
/// because a user's other machines need not be bad. Single bad pieces don't count at all, however many
/// machines send one each: a peer is banned at its second. A tracker certifies 16 keys a week, so this allows
/// 16 bad pieces a week.
const BANNED_KEYS: usize = 2;
/// The most groups, and the most peers, that are remembered: more than a user can be in, and more than send
/// bad pieces in an hour. Beyond that, the groups with the lowest epochs are forgotten. A tracker counts the
/// epochs of all its groups together, so the lowest epochs rose longest ago, and older tickets of those
/// groups have expired.
const MOST: usize = 10_000;

/// The tracker's clock is kept again once it has moved on by this many seconds.
const CLOCK_STEP: u64 = 60;

/// Keys, epochs, the tracker's clock and bans. They are on disk if there is a directory for them.
#[derive(Debug, Default)]
pub(crate) struct TrustMemory {
    directory: Option<PathBuf>,
    /// Locked while its file is written as well. Changes are rare.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    path: Option<PathBuf>,
    kept: Kept,
}

/// The keys and epochs that an engine continues with after a restart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) keys: Vec<VerifyingKey>,
    pub(super) epochs: Vec<(GroupId, u64)>,
    pub(super) clock: Option<KeptClock>,
}

/// The tracker's clock, as it was last reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptClock {
    /// The seconds to add to this machine's clock to get the tracker's.
    pub(crate) offset: i64,
    /// The tracker's time, in seconds since 1970. It is up to [`CLOCK_STEP`] older than the last report.
    pub(crate) told: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    /// The keys that verify tickets, in hexadecimal, by id.
    keys: BTreeMap<String, String>,
    /// The lowest epoch of valid tickets, by group.
    epochs: BTreeMap<String, u64>,
    clock: Option<KeptClock>,
    /// The end of each peer's ban, in seconds since 1970.
    bans: BTreeMap<String, u64>,
    /// The user of each banned peer.
    users: BTreeMap<String, String>,
}

impl TrustMemory {
    /// Reads nothing until [`Self::take_up`].
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, inner: Mutex::default() }
    }

    /// Continues with what is remembered of the tracker with any of these authorities. Returns `None` if it
    /// has already done so. The first authority names the file from then on.
    pub(super) fn take_up(&self, authorities: &[AuthorityFingerprint]) -> Option<Remembered> {
        let directory = self.directory.as_ref()?;
        let file = |authority: &AuthorityFingerprint| {
            directory.join(format!("{}.json", authority.to_string().replace(':', "")))
        };
        let paths: Vec<PathBuf> = authorities.iter().map(file).collect();
        let first = paths.first()?;
        let mut inner = self.inner.lock();
        if let Some(before) = inner.path.clone().filter(|path| paths.contains(path)) {
            inner.move_to(first, &before);
            return None;
        }
        let path = paths.iter().find(|path| path.exists()).unwrap_or(first);
        let kept = durable::read_if_there(path).and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            None => Ok(Kept::default()),
        });
        inner.kept = kept.unwrap_or_else(|error| {
            tracing::error!(
                %error, path = %path.display(),
                "ticket keys, epochs and bans are forgotten, because their file can't be read; nobody is served until \
                 the tracker tells the keys again"
            );
            Kept::default()
        });
        inner.move_to(first, path);
        Some(inner.kept.remembered())
    }

    /// Replaces the keys that verify tickets.
    pub(super) fn keep_keys(&self, keys: &[VerifyingKey]) {
        let keys = keys.iter().map(|key| (key.id.clone(), HEXLOWER.encode(&key.bytes))).collect();
        let mut inner = self.inner.lock();
        if inner.kept.keys != keys {
            inner.kept.keys = keys;
            inner.save();
        }
    }

    /// Notes epochs that have risen.
    pub(super) fn keep_epochs(&self, epochs: &[(GroupId, u64)]) {
        let mut inner = self.inner.lock();
        if inner.kept.raise(epochs) {
            inner.save();
        }
    }

    /// Notes the epochs of all groups that the user is in, and forgets the others.
    pub(super) fn set_epochs(&self, epochs: &[(GroupId, u64)]) {
        let mut inner = self.inner.lock();
        let before = inner.kept.epochs.len();
        let told: HashSet<&str> = epochs.iter().map(|(group, _)| group.as_str()).collect();
        inner.kept.epochs.retain(|group, _| told.contains(group.as_str()));
        let forgotten = inner.kept.epochs.len() < before;
        if inner.kept.raise(epochs) || forgotten {
            inner.save();
        }
    }

    /// Notes the tracker's clock. Cheap unless it was set, or has moved on by [`CLOCK_STEP`].
    pub(super) fn keep_clock(&self, clock: KeptClock) {
        let mut inner = self.inner.lock();
        let is_near =
            |kept: KeptClock| kept.offset == clock.offset && kept.told.abs_diff(clock.told) < CLOCK_STEP;
        if !inner.kept.clock.is_some_and(is_near) {
            inner.kept.clock = Some(clock);
            inner.save();
        }
    }

    /// Bans the peer of that user for an hour, because it sent bad pieces. See also [`BANNED_KEYS`].
    pub(crate) fn ban(&self, peer: PeerId, user: Option<&Username>) {
        let now = seconds(SystemTime::now());
        let mut inner = self.inner.lock();
        let Kept { bans, users, .. } = &mut inner.kept;
        bans.retain(|_, until| is_banned_until(*until, now));
        users.retain(|peer, _| bans.contains_key(peer));
        if bans.len() < MOST {
            bans.entry(peer.to_string()).or_insert(now + BAN.as_secs());
            if let Some(user) = user {
                users.insert(peer.to_string(), user.to_string());
            }
            inner.save();
        }
    }

    /// Whether the peer of that user is banned now.
    pub(crate) fn is_banned(&self, peer: PeerId, user: &Username) -> bool {
        let now = seconds(SystemTime::now());
        let inner = self.inner.lock();
        let Kept { bans, users, .. } = &inner.kept;
        let holds = |peer: &String| bans.get(peer).is_some_and(|until| is_banned_until(*until, now));
        let keys = || users.iter().filter(|(peer, of)| *of == user.as_str() && holds(peer)).count();
        holds(&peer.to_string()) || keys() >= BANNED_KEYS
    }
}

/// Whether a ban still holds. A ban never holds for longer than [`BAN`], whatever the clock was set to
/// meanwhile.
fn is_banned_until(until: u64, now: u64) -> bool {
    until.checked_sub(now).is_some_and(|left| (1..=BAN.as_secs()).contains(&left))
}

impl Kept {
    /// Raises epochs to these where these are higher or none was known. Returns whether any was.
    fn raise(&mut self, epochs: &[(GroupId, u64)]) -> bool {
        let mut risen = false;
        for (group, epoch) in epochs {
            if self.epochs.get(group.as_str()).is_none_or(|known| known < epoch) {
                self.epochs.insert(group.to_string(), *epoch);
                risen = true;
            }
        }
        if risen {
            self.forget_lowest();
        }
        risen
    }

    fn forget_lowest(&mut self) {
        let more = self.epochs.len().saturating_sub(MOST);
        if more > 0 {
            let mut lowest: Vec<_> =
                self.epochs.iter().map(|(group, epoch)| (*epoch, group.clone())).collect();
            lowest.sort_unstable();
            for (_, group) in lowest.drain(..more) {
                self.epochs.remove(&group);
            }
        }
    }

    fn remembered(&self) -> Remembered {
        let key = |(id, bytes): (&String, &String)| {
            let bytes = HEXLOWER.decode(bytes.as_bytes()).ok()?.try_into().ok()?;
            Some(VerifyingKey { id: id.clone(), bytes })
        };
        let epoch = |(group, epoch): (&String, &u64)| Some((GroupId::stored(group).ok()?, *epoch));
        Remembered {
            keys: self.keys.iter().filter_map(key).collect(),
            epochs: self.epochs.iter().filter_map(epoch).collect(),
            clock: self.clock,
        }
    }
}

impl Inner {
    /// Uses this file from now on, in the place of the one before.
    fn move_to(&mut self, path: &Path, before: &Path) {
        self.path = Some(path.to_owned());
        if path != before {
            self.save();
            if let Err(error) = durable::remove_if_there(before) {
                tracing::warn!(%error, path = %before.display(), "a file of an earlier authority stays");
            }
        }
    }

    /// Writes the file. Changes that can't be written still count until the next start. The old file is
    /// removed then: its keys with older epochs would admit removed members after a restart.
    fn save(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(&self.kept).map_err(io::Error::other).and_then(|bytes| {
            path.parent().map_or(Ok(()), durable::private_dir)?;
            durable::write(path, &bytes, Readers::Owner)
        });
        if let Err(error) = written {
            let removed = durable::remove_if_there(path);
            tracing::error!(
                %error, ?removed, path = %path.display(),
                "ticket keys, epochs and bans can't be kept over a restart"
            );
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn authority(digit: &str) -> &'static [AuthorityFingerprint] {
        vec![digit.repeat(64).parse().unwrap()].leak()
    }

    fn remembers(keys: &[&VerifyingKey], epochs: &[(&GroupId, u64)]) -> Option<Remembered> {
        Some(Remembered {
            keys: keys.iter().copied().cloned().collect(),
            epochs: epochs.iter().map(|(group, epoch)| ((*group).clone(), *epoch)).collect(),
            clock: None,
        })
    }

    fn key(number: u8) -> VerifyingKey {
        VerifyingKey { id: format!("key{number}"), bytes: [number; 32] }
    }

    #[test]
    fn keys_and_epochs_are_kept_over_a_restart_together_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().join("engine")));
        let group: GroupId = "g1".parse().unwrap();
        let memory = open();
        assert_eq!(memory.take_up(authority("a")), remembers(&[], &[]));
        memory.keep_keys(&[key(1), key(2)]);
        memory.keep_epochs(&[(group.clone(), 5)]);
        assert_eq!(open().take_up(authority("a")), remembers(&[&key(1), &key(2)], &[(&group, 5)]));
        assert_eq!(open().take_up(authority("b")), remembers(&[], &[]), "another tracker's keys are others");
        memory.keep_keys(&[key(3)]);
        assert_eq!(open().take_up(authority("a")), remembers(&[&key(3)], &[(&group, 5)]));
        memory.keep_keys(&[]);
        assert_eq!(open().take_up(authority("a")), remembers(&[], &[(&group, 5)]));

        memory.keep_keys(&[key(3)]);
        // The new file can't be written, because a directory has its name.
        let beside = home.path().join(format!("engine/{}.json.new", "A".repeat(64)));
        std::fs::create_dir(&beside).unwrap();
        memory.keep_epochs(&[(group.clone(), 6)]);
        assert_eq!(open().take_up(authority("a")), remembers(&[], &[]), "no keys without the last epochs");
        std::fs::remove_dir(&beside).unwrap();
        memory.keep_epochs(&[(group.clone(), 7)]);
        assert_eq!(open().take_up(authority("a")), remembers(&[&key(3)], &[(&group, 7)]));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A group's epoch rises, and the tracker reports it.
        Raise(usize),
        /// A stream opens: the tracker sends the epochs of all groups, and then the keys.
        Welcome(u8),
        LogOut,
        BreakDisk,
        MendDisk,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize).prop_map(Step::Raise),
            (1..4_u8).prop_map(Step::Welcome),
            Just(Step::LogOut),
            Just(Step::BreakDisk),
            Just(Step::MendDisk),
            Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn whoever_has_keys_after_a_restart_has_the_last_epochs(
            steps in proptest::collection::vec(step(), 1..30),
        ) {
            let home = tempfile::tempdir().unwrap();
            let beside = home.path().join(format!("{}.json.new", "A".repeat(64)));
            let open = || {
                let memory = TrustMemory::new(Some(home.path().to_owned()));
                (memory.take_up(authority("a")).unwrap(), memory)
            };
            let groups = ["g0", "g1", "g2"].map(|group| group.parse::<GroupId>().unwrap());
            let mut told: Vec<_> = groups.iter().map(|group| (group.clone(), 1)).collect();
            let (mut last, mut memory) = (1, open().1);
            for step in steps {
                match step {
                    Step::Raise(group) => {
                        last += 1;
                        told[group].1 = last;
                        memory.keep_epochs(&told[group..=group]);
                    }
                    Step::Welcome(number) => {
                        memory.set_epochs(&told);
                        memory.keep_keys(&[key(number)]);
                    }
                    Step::LogOut => memory.keep_keys(&[]),
                    Step::BreakDisk => drop(std::fs::create_dir(&beside)),
                    Step::MendDisk => drop(std::fs::remove_dir(&beside)),
                    Step::Restart => {
                        let remembered;
                        (remembered, memory) = open();
                        prop_assert!(remembered.keys.is_empty() || remembered.epochs == told, "{remembered:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_too_many_groups_those_are_remembered_whose_epochs_rose_last() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().to_owned()));
        let memory = open();
        memory.take_up(authority("a"));
        let group = |number: u64| format!("g{number}").parse::<GroupId>().unwrap();
        let all: Vec<_> = (1..=MOST as u64).map(|number| (group(number), number)).collect();
        memory.keep_epochs(&all);
        let last = MOST as u64 + 1;
        memory.keep_epochs(&[(group(last), last)]);
        let kept = open().take_up(authority("a")).unwrap().epochs;
        assert_eq!(kept.len(), MOST);
        assert!(kept.contains(&(group(last), last)) && kept.contains(&(group(2), 2)));
    }

    #[test]
    fn epochs_only_rise_and_bans_last_also_over_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().join("engine")));
        let (g1, g2): (GroupId, GroupId) = ("g1".parse().unwrap(), "g2".parse().unwrap());
        let (liar, other) = (PeerId::from([1; 32]), PeerId::from([2; 32]));
        let memory = open();
        assert_eq!(memory.take_up(authority("a")), remembers(&[], &[]));
        memory.keep_epochs(&[(g1.clone(), 5), (g2.clone(), 2)]);
        memory.keep_epochs(&[(g1.clone(), 4), (g2.clone(), 3)]);
        let (ann, bob): (Username, Username) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        memory.ban(liar, Some(&ann));
        assert!(memory.is_banned(liar, &ann) && !memory.is_banned(other, &bob));
        assert_eq!(memory.take_up(authority("a")), None, "it goes on already");

        let again = open();
        assert!(!again.is_banned(liar, &ann), "not known yet");
        assert_eq!(again.take_up(authority("a")), remembers(&[], &[(&g1, 5), (&g2, 3)]));
        assert!(again.is_banned(liar, &ann) && !again.is_banned(other, &bob));
        assert_eq!(again.take_up(authority("b")), remembers(&[], &[]), "another tracker's groups are others");
        assert!(!again.is_banned(liar, &ann));
    }

    #[test]
    fn a_new_authority_beside_the_old_one_is_the_same_tracker() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().to_owned()));
        let group: GroupId = "g1".parse().unwrap();
        let [old, new, other] = ["a", "b", "c"].map(|digit| digit.repeat(64).parse().unwrap());
        let memory = open();
        memory.take_up(&[old]);
        memory.keep_epochs(&[(group.clone(), 5)]);
        memory.keep_keys(&[key(1)]);
        // The new authority comes first, comes last, and stays alone.
        assert_eq!(memory.take_up(&[new, old]), None, "it goes on");
        assert_eq!(open().take_up(&[new]), remembers(&[&key(1)], &[(&group, 5)]));
        assert_eq!(memory.take_up(&[old, new]), None);
        memory.keep_keys(&[key(2)]);
        assert_eq!(open().take_up(&[new, old]), remembers(&[&key(2)], &[(&group, 5)]));
        assert_eq!(open().take_up(&[new]), remembers(&[&key(2)], &[(&group, 5)]));
        assert_eq!(open().take_up(&[old]), remembers(&[], &[]), "one file is left");
        assert_eq!(open().take_up(&[other]), remembers(&[], &[]), "another tracker");
    }

    #[test]
    fn the_epoch_of_a_group_that_the_user_left_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().to_owned()));
        let (g1, g2): (GroupId, GroupId) = ("g1".parse().unwrap(), "g2".parse().unwrap());
        let memory = open();
        memory.take_up(authority("a"));
        memory.set_epochs(&[(g1.clone(), 5), (g2.clone(), 2)]);
        memory.set_epochs(&[(g1.clone(), 4)]);
        assert_eq!(open().take_up(authority("a")), remembers(&[], &[(&g1, 5)]));
    }

    #[test]
    fn the_trackers_clock_is_kept_when_it_changes_and_once_a_minute() {
        let home = tempfile::tempdir().unwrap();
        let open = || TrustMemory::new(Some(home.path().to_owned())).take_up(authority("a")).unwrap().clock;
        let memory = TrustMemory::new(Some(home.path().to_owned()));
        memory.take_up(authority("a"));
        assert_eq!(open(), None);
        for (offset, told, kept) in [
            (300, 1_000, (300, 1_000)),
            (300, 1_059, (300, 1_000)),
            (300, 1_060, (300, 1_060)),
            (0, 1_061, (0, 1_061)),
            // The tracker's clock was set back. Its tickets are judged by it from now on.
            (0, 900, (0, 900)),
        ] {
            memory.keep_clock(KeptClock { offset, told });
            assert_eq!(open().map(|clock| (clock.offset, clock.told)), Some(kept), "{offset} {told}");
        }
    }

    #[test]
    fn a_user_of_whom_two_peers_are_banned_is_banned_with_the_next() {
        let home = tempfile::tempdir().unwrap();
        let (ann, bob): (Username, Username) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let key = |number: u8| PeerId::from([number; 32]);
        let open = || {
            let memory = TrustMemory::new(Some(home.path().to_owned()));
            memory.take_up(authority("a"));
            memory
        };
        let memory = open();
        memory.ban(key(1), Some(&ann));
        memory.ban(key(1), Some(&ann));
        memory.ban(key(2), Some(&bob));
        assert!(!memory.is_banned(key(3), &ann), "one machine is bad, others need not be");
        memory.ban(key(3), Some(&ann));
        assert!(memory.is_banned(key(4), &ann), "the next key does not start clean");
        assert!(!memory.is_banned(key(5), &bob), "another user");
        assert!(open().is_banned(key(4), &ann), "nor after a restart");
    }

    #[test]
    fn nothing_is_written_while_nothing_changes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(format!("{}.json", "A".repeat(64)));
        let memory = TrustMemory::new(Some(home.path().to_owned()));
        memory.take_up(authority("a"));
        let tell = |epoch| {
            let epochs = [("g1".parse().unwrap(), epoch)];
            memory.set_epochs(&epochs);
            memory.keep_epochs(&epochs);
            memory.keep_keys(&[key(1)]);
            memory.keep_clock(KeptClock { offset: 1, told: 1_000 });
        };
        tell(5);
        std::fs::remove_file(&path).unwrap();
        tell(5);
        assert!(!path.exists(), "the same was told again");
        tell(6);
        assert!(path.exists());
    }

    #[test]
    fn a_ban_lasts_an_hour_and_there_is_a_limit_of_bans() {
        for (left, holds) in [(0, false), (1, true), (3_600, true), (3_601, false)] {
            assert_eq!(is_banned_until(50_000 + left, 50_000), holds, "{left}");
        }
        assert!(!is_banned_until(50_000, 50_001), "it is over");
        assert_eq!(seconds(UNIX_EPOCH + Duration::from_secs(5)), 5);

        let memory = TrustMemory::new(None);
        let until = seconds(SystemTime::now()) + BAN.as_secs() / 2;
        memory.inner.lock().kept.bans = (1..MOST).map(|number| (number.to_string(), until)).collect();
        let (last, beyond) = (PeerId::from([1; 32]), PeerId::from([2; 32]));
        let ann: Username = "ann".parse().unwrap();
        memory.ban(last, None);
        memory.ban(beyond, None);
        assert!(memory.is_banned(last, &ann) && !memory.is_banned(beyond, &ann));
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(format!("{}.json", "A".repeat(64)));
        std::fs::write(&path, "{\"epochs\":").unwrap();
        let memory = TrustMemory::new(Some(home.path().to_owned()));
        assert_eq!(memory.take_up(authority("a")), remembers(&[], &[]));
        memory.ban(PeerId::from([1; 32]), None);
        assert!(std::fs::read_to_string(&path).unwrap().contains("bans"));
    }
}
