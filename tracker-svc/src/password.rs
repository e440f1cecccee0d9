//! Passwords: the rules for them, and argon2id outside the async threads, a few at once.
//!
//! A hash takes 19 MiB and a core for tens of milliseconds. So at most half the cores hash, and a short queue
//! waits. A caller that would have to wait longer is told to retry later. A flood of logins therefore does
//! not stop the rest of the tracker.
//!
//! The 19 MiB blocks are reused and never freed. Their number is the highest number of hashes that ever ran
//! at once. If each block were freed after its hash, the allocator would keep one for every thread that has
//! hashed.

use std::{
    cell::RefCell,
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        CustomizedPasswordHasher, Error, PasswordVerifier as _,
        phc::{Output, ParamsString, PasswordHash, Salt},
        try_generate_salt,
    },
};
use parking_lot::Mutex;
use proto::domain::limits::PASSWORD_LENGTH;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::error::TrackerError;

/// Maximum number of calls that wait for a hash.
const QUEUE: usize = 64;
/// Maximum wait of a call.
const PATIENCE: Duration = Duration::from_secs(3);

/// OWASP's minimum, and the crate's default: argon2id with 19 MiB, two passes, one lane.
const COSTS: Params = Params::DEFAULT;

/// At least 3,000 passwords that guessers try first: lower-case, one per line, sorted.
static COMMON: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// A password in normalization form C, wiped when dropped.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Makes a password to be checked against a hash. Only its length is limited.
    ///
    /// # Errors
    /// [`TrackerError::WeakPassword`] if it is longer than any password may be.
    pub fn given(text: String) -> Result<Self, TrackerError> {
        let text = Zeroizing::new(text);
        if text.len() > *PASSWORD_LENGTH.end() {
            return Err(TrackerError::WeakPassword("a password may have at most 1,024 bytes"));
        }
        Ok(Self(Zeroizing::new(text.nfc().collect())))
    }

    /// Makes a password to be set. It is checked before any hash is computed.
    ///
    /// # Errors
    /// [`TrackerError::WeakPassword`] if it is too short, too long or common.
    pub fn chosen(text: String) -> Result<Self, TrackerError> {
        let password = Self::given(text)?;
        if !PASSWORD_LENGTH.contains(&password.0.len()) {
            return Err(TrackerError::WeakPassword("a password must have 8 to 1,024 bytes"));
        }
        let lower = Zeroizing::new(password.0.to_lowercase());
        if COMMON.binary_search(&lower.as_str()).is_ok() {
            return Err(TrackerError::WeakPassword(
                "that password is on the list of common passwords; choose another",
            ));
        }
        Ok(password)
    }
}

/// The result of checking a password.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is wrong.
    Wrong,
    /// The password is right, and the stored hash has today's costs.
    Right,
    /// The password is right, and this hash should replace the stored one.
    Rehashed(String),
}

/// Hashes and checks passwords. Cheap to clone.
#[derive(Clone)]
pub struct Hasher {
    /// Permits of the calls that run or wait.
    places: Arc<Semaphore>,
    /// Permits of the calls that run.
    work: Arc<Semaphore>,
    /// The memory blocks that are not in use: at most one for each permit of `work`.
    spare: Arc<Mutex<Vec<HashMemory>>>,
    /// The hash for unknown users, so that checking their passwords costs the same.
    dummy: Arc<str>,
}

impl Hasher {
    /// Makes a hasher for this machine.
    ///
    /// # Errors
    /// Fails if the machine's random source fails.
    pub fn new() -> Result<Self, TrackerError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = (cores / 2).max(1);
        let mut memory = HashMemory::default();
        let dummy = memory.hash(&Password(Zeroizing::new("nobody's password".into())))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(workers + QUEUE)),
            work: Arc::new(Semaphore::new(workers)),
            spare: Arc::new(Mutex::new(vec![memory])),
            dummy: dummy.into(),
        })
    }

    /// The number of calls that hash or wait.
    pub fn waiting(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        ((cores / 2).max(1) + QUEUE).saturating_sub(self.places.available_permits())
    }

    /// Returns the PHC string of a password.
    ///
    /// # Errors
    /// [`TrackerError::Busy`], or an internal fault.
    pub async fn hash(&self, password: Password) -> Result<String, TrackerError> {
        self.run(move |memory| memory.hash(&password)).await
    }

    /// Checks a password against a stored PHC string. Without a stored one, does the same work and returns
    /// [`Verdict::Wrong`].
    ///
    /// # Errors
    /// [`TrackerError::Busy`], or an internal fault.
    pub async fn verify(&self, password: Password, stored: Option<&str>) -> Result<Verdict, TrackerError> {
        let (known, against) = (stored.is_some(), stored.unwrap_or(&self.dummy).to_owned());
        self.run(move |memory| {
            let verdict = memory.verify(&password, &against)?;
            Ok(if known { verdict } else { Verdict::Wrong })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut HashMemory) -> Result<T, TrackerError> + Send + 'static,
    ) -> Result<T, TrackerError> {
        let busy = || TrackerError::Busy(PATIENCE);
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.work).acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| TrackerError::NotServing)?;
        let spare = Arc::clone(&self.spare);
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if the caller has gone: a blocking thread cannot be
            // cancelled.
            let (_place, _turn) = (place, turn);
            let lock = || spare.lock();
            let mut memory = lock().pop().unwrap_or_default();
            let outcome = work(&mut memory);
            // This comes before the permit is released, so that the next holder finds this memory.
            lock().push(memory);
            outcome
        });
        done.await.map_err(|error| TrackerError::Internal(format!("the hashing thread failed: {error}")))?
    }
}

/// The memory that argon2 works in. Empty until its first hash.
#[derive(Default)]
struct HashMemory(Vec<Block>);

impl HashMemory {
    fn hash(&mut self, password: &Password) -> Result<String, TrackerError> {
        let salt = try_generate_salt().map_err(|error| fault(error.into()))?;
        let hash = Reusing::new(self)
            .hash_password_with_params(password.0.as_bytes(), &salt, COSTS)
            .map_err(fault)?;
        Ok(hash.to_string())
    }

    fn verify(&mut self, password: &Password, stored: &str) -> Result<Verdict, TrackerError> {
        let stored = PasswordHash::new(stored)
            .map_err(|error| TrackerError::Internal(format!("stored hash: {error}")))?;
        if Reusing::new(self).verify_password(password.0.as_bytes(), &stored).is_err() {
            return Ok(Verdict::Wrong);
        }
        let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        let is_current = Params::try_from(&stored).is_ok_and(|params| costs(&params) == costs(&COSTS));
        Ok(if is_current { Verdict::Right } else { Verdict::Rehashed(self.hash(password)?) })
    }

    /// Returns `count` blocks. If that is more than [`COSTS`] need, the blocks are for one hash only. A hash
    /// with today's costs replaces it afterwards.
    fn blocks<'a>(&'a mut self, count: usize, more: &'a mut Vec<Block>) -> Result<&'a mut [Block], Error> {
        let usual = COSTS.block_count();
        let (blocks, size) = if count <= usual { (&mut self.0, usual) } else { (more, count) };
        let missing = size.saturating_sub(blocks.len());
        blocks.try_reserve_exact(missing).map_err(|_| Error::OutOfMemory)?;
        blocks.resize(size, Block::new());
        blocks.get_mut(..count).ok_or(Error::OutOfMemory)
    }
}

/// The crate's Argon2, but in existing memory. The crate does the verification, with a comparison in constant
/// time.
struct Reusing<'a>(RefCell<&'a mut HashMemory>);

impl<'a> Reusing<'a> {
    fn new(memory: &'a mut HashMemory) -> Self {
        Self(RefCell::new(memory))
    }
}

impl CustomizedPasswordHasher<PasswordHash> for Reusing<'_> {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> Result<PasswordHash, Error> {
        let algorithm = algorithm.map(Algorithm::try_from).transpose()?.unwrap_or_default();
        let version = version.map(Version::try_from).transpose()?.unwrap_or_default();
        let salt = Salt::new(salt)?;
        let mut output = [0; Output::MAX_LENGTH];
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let output = output.get_mut(..length).ok_or(Error::OutputSize)?;
        let (mut memory, mut more) = (self.0.borrow_mut(), Vec::new());
        let blocks = memory.blocks(params.block_count(), &mut more)?;
        let argon2 = Argon2::new(algorithm, version, params);
        argon2.hash_password_into_with_memory(password, &salt, output, blocks)?;
        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(argon2.params())?,
            salt: Some(salt),
            hash: Some(Output::new(output)?),
        })
    }
}

fn fault(error: Error) -> TrackerError {
    TrackerError::Internal(format!("argon2: {error}"))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher as _;

    use super::*;

    fn given(text: &str) -> Password {
        Password::given(text.into()).expect("short enough")
    }

    #[test]
    fn the_list_is_sorted_long_and_lower_case() {
        assert!(COMMON.len() >= 3_000);
        assert!(COMMON.is_sorted());
        assert!(COMMON.iter().all(|word| word.len() >= *PASSWORD_LENGTH.start()));
        assert!(COMMON.iter().all(|word| word.to_lowercase() == **word));
    }

    #[test]
    fn what_may_be_a_password() {
        for bad in
            ["", "seven77", "password", "PassWord123", "12345678", &"x".repeat(1_025), &"x".repeat(10 << 20)]
        {
            assert!(Password::chosen(bad.into()).is_err(), "{bad:.20}");
        }
        for good in ["eight888", "with\0nul-inside", "пароль-на-восемь", &"y".repeat(1_024), "        "]
        {
            assert!(Password::chosen(good.into()).is_ok(), "{good:.20}");
        }
    }

    #[tokio::test]
    async fn both_forms_of_a_letter_are_the_same_password_and_others_are_wrong() {
        let hasher = Hasher::new().expect("a hasher");
        let stored = hasher.hash(given("caf\u{e9} au lait")).await.expect("a hash");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let verify = async |text: &str| hasher.verify(given(text), Some(&stored)).await.expect("a verdict");
        assert_eq!(verify("cafe\u{301} au lait").await, Verdict::Right);
        assert_eq!(verify("cafe au lait").await, Verdict::Wrong);
        assert_eq!(verify("").await, Verdict::Wrong);
        let unknown = hasher.verify(given("nobody's password"), None).await.expect("a verdict");
        assert_eq!(unknown, Verdict::Wrong);
    }

    /// A hash made by the crate alone.
    fn by_the_crate(memory: u32, passes: u32, lanes: u32, length: Option<usize>) -> String {
        let params = Params::new(memory, passes, lanes, length).expect("good parameters");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash: PasswordHash = argon2.hash_password(b"correct horse").expect("a hash");
        hash.to_string()
    }

    #[tokio::test]
    async fn hashes_of_other_costs_are_verified_and_replaced() {
        let hasher = Hasher::new().expect("a hasher");
        let verify = async |text: &str, stored: &str| hasher.verify(given(text), Some(stored)).await;
        // Less memory than today's costs, more memory, and more lanes.
        for stored in [
            by_the_crate(8_192, 1, 1, None),
            by_the_crate(30_000, 1, 1, None),
            by_the_crate(4_096, 3, 4, None),
        ] {
            assert_eq!(verify("wrong horse", &stored).await.expect("a verdict"), Verdict::Wrong, "{stored}");
            let verdict = verify("correct horse", &stored).await.expect("a verdict");
            let Verdict::Rehashed(today) = verdict else { panic!("{stored}: {verdict:?}") };
            assert_eq!(verify("correct horse", &today).await.expect("a verdict"), Verdict::Right);
        }
        let short = by_the_crate(19_456, 2, 1, Some(16));
        assert_eq!(verify("correct horse", &short).await.expect("a verdict"), Verdict::Right);
        // More memory than the machine has: one account's bad row must not stop the tracker.
        let absurd = by_the_crate(8_192, 1, 1, None).replace("m=8192", "m=4294967295");
        assert_eq!(verify("correct horse", &absurd).await.expect("a verdict"), Verdict::Wrong);
    }

    #[tokio::test]
    async fn what_is_hashed_here_is_what_the_crate_would_hash() {
        let hasher = Hasher::new().expect("a hasher");
        let stored = by_the_crate(19_456, 2, 1, None);
        let verdict = hasher.verify(given("correct horse"), Some(&stored)).await.expect("a verdict");
        assert_eq!(verdict, Verdict::Right);
        let ours = hasher.hash(given("correct horse")).await.expect("a hash");
        assert!(Argon2::default().verify_password(b"correct horse", ours.as_str()).is_ok(), "{ours}");
        assert!(Argon2::default().verify_password(b"wrong horse", ours.as_str()).is_err(), "{ours}");
        assert_ne!(ours, hasher.hash(given("correct horse")).await.expect("a hash"), "each has its own salt");
    }

    #[tokio::test]
    async fn no_more_memory_is_kept_than_was_at_work_at_once() {
        let hasher = Hasher::new().expect("a hasher");
        let workers = hasher.work.available_permits();
        let mut hashes = tokio::task::JoinSet::new();
        for n in 0..2 * workers + 6 {
            let hasher = hasher.clone();
            hashes.spawn(async move { hasher.hash(given(&format!("password {n}"))).await });
        }
        for hash in hashes.join_all().await {
            assert!(hash.is_ok(), "{hash:?}");
        }
        // A hash that needs more memory than today's costs must not leave any behind.
        let larger = by_the_crate(30_000, 1, 1, None);
        hasher.verify(given("correct horse"), Some(&larger)).await.expect("a verdict");
        let spare = hasher.spare.lock();
        assert!((1..=workers).contains(&spare.len()), "{} kept by {workers}", spare.len());
        for memory in spare.iter() {
            assert_eq!(memory.0.capacity(), COSTS.block_count());
        }
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let hasher = Hasher::new().expect("a hasher");
        let all = u32::try_from(hasher.places.available_permits()).expect("few");
        let _taken = hasher.places.acquire_many(all).await.expect("free places");
        assert!(matches!(hasher.hash(given("whatever it is")).await, Err(TrackerError::Busy(_))));
    }
}
