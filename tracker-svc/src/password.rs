//! Passwords: which are let in, and argon2id off the async threads, a few at once.
//!
//! A hash takes 19 MiB and a core for tens of milliseconds. So at most half the cores hash, a short queue waits, and
//! whoever would wait longer is told to come back: a flood of logins leaves the rest of the tracker served.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
    time::Duration,
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use proto::domain::limits::PASSWORD_LENGTH;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::error::TrackerError;

/// Calls that may wait for a hash.
const QUEUE: usize = 64;
/// How long one may wait.
const PATIENCE: Duration = Duration::from_secs(3);

/// OWASP's least, and the crate's default: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    Argon2::default()
}

/// Lower-case, one a line, sorted: at least 3,000 that guessers try first.
static COMMON: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// A password in normalization form C, wiped when dropped.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password to be checked against a hash: only its length is bounded.
    ///
    /// # Errors
    /// [`TrackerError::WeakPassword`] when it is longer than any password may be.
    pub fn given(text: String) -> Result<Self, TrackerError> {
        let text = Zeroizing::new(text);
        if text.len() > *PASSWORD_LENGTH.end() {
            return Err(TrackerError::WeakPassword("a password has at most 1,024 bytes"));
        }
        Ok(Self(Zeroizing::new(text.nfc().collect())))
    }

    /// Takes a password to be set: no hash is run for one that may not be.
    ///
    /// # Errors
    /// [`TrackerError::WeakPassword`] when it is too short, too long or common.
    pub fn chosen(text: String) -> Result<Self, TrackerError> {
        let password = Self::given(text)?;
        if !PASSWORD_LENGTH.contains(&password.0.len()) {
            return Err(TrackerError::WeakPassword("a password has 8 to 1,024 bytes"));
        }
        let lower = Zeroizing::new(password.0.to_lowercase());
        if COMMON.binary_search(&lower.as_str()).is_ok() {
            return Err(TrackerError::WeakPassword("that password is one of the first that a guesser tries"));
        }
        Ok(password)
    }
}

/// What checking a password gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another one.
    Wrong,
    /// It is the one; the stored hash is as strong as today's.
    Right,
    /// It is the one; the stored hash should be replaced by this one.
    Rehashed(String),
}

/// Hashes and checks passwords. Cheap to clone.
#[derive(Clone)]
pub struct Hasher {
    /// Places at work and in the queue together.
    places: Arc<Semaphore>,
    /// Places at work.
    work: Arc<Semaphore>,
    /// What an unknown user's password is checked against, so that it costs the same.
    dummy: Arc<str>,
}

impl Hasher {
    /// A hasher for this machine.
    ///
    /// # Errors
    /// When the machine's random source fails.
    pub fn new() -> Result<Self, TrackerError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = (cores / 2).max(1);
        let dummy = hash(&Password(Zeroizing::new("nobody's password".into())))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(workers + QUEUE)),
            work: Arc::new(Semaphore::new(workers)),
            dummy: dummy.into(),
        })
    }

    /// Calls that hash or wait, now.
    pub fn waiting(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        ((cores / 2).max(1) + QUEUE).saturating_sub(self.places.available_permits())
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// [`TrackerError::Busy`], or a fault of ours.
    pub async fn hash(&self, password: Password) -> Result<String, TrackerError> {
        self.run(move || hash(&password)).await
    }

    /// Checks a password against a stored PHC string; without one, does the same work and finds it wrong.
    ///
    /// # Errors
    /// [`TrackerError::Busy`], or a fault of ours.
    pub async fn verify(&self, password: Password, stored: Option<&str>) -> Result<Verdict, TrackerError> {
        let (known, against) = (stored.is_some(), stored.unwrap_or(&self.dummy).to_owned());
        self.run(move || {
            let verdict = verify(&password, &against)?;
            Ok(if known { verdict } else { Verdict::Wrong })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, TrackerError> + Send + 'static,
    ) -> Result<T, TrackerError> {
        let busy = || TrackerError::Busy(PATIENCE);
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.work).acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| TrackerError::NotServing)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also when the caller is gone: a thread can't be called back.
            let (_place, _turn) = (place, turn);
            work()
        });
        done.await.map_err(|error| TrackerError::Internal(format!("the hashing thread: {error}")))?
    }
}

fn hash(password: &Password) -> Result<String, TrackerError> {
    let hash: PasswordHash = argon2().hash_password(password.0.as_bytes()).map_err(fault)?;
    Ok(hash.to_string())
}

fn verify(password: &Password, stored: &str) -> Result<Verdict, TrackerError> {
    let stored =
        PasswordHash::new(stored).map_err(|error| TrackerError::Internal(format!("stored hash: {error}")))?;
    if argon2().verify_password(password.0.as_bytes(), &stored).is_err() {
        return Ok(Verdict::Wrong);
    }
    let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
    let is_current = Params::try_from(&stored).is_ok_and(|params| costs(&params) == costs(argon2().params()));
    Ok(if is_current { Verdict::Right } else { Verdict::Rehashed(hash(password)?) })
}

fn fault(error: argon2::password_hash::Error) -> TrackerError {
    TrackerError::Internal(format!("argon2: {error}"))
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn weaker_hashes_are_replaced() {
        let weak = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            Params::new(8_192, 1, 1, None).expect("good parameters"),
        );
        let stored: PasswordHash = weak.hash_password(b"correct horse").expect("a hash");
        let hasher = Hasher::new().expect("a hasher");
        let verdict =
            hasher.verify(given("correct horse"), Some(&stored.to_string())).await.expect("a verdict");
        let Verdict::Rehashed(stronger) = verdict else { panic!("{verdict:?}") };
        assert_eq!(
            hasher.verify(given("correct horse"), Some(&stronger)).await.expect("one"),
            Verdict::Right
        );
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let hasher = Hasher::new().expect("a hasher");
        let all = u32::try_from(hasher.places.available_permits()).expect("few");
        let _taken = hasher.places.acquire_many(all).await.expect("free places");
        assert!(matches!(hasher.hash(given("whatever it is")).await, Err(TrackerError::Busy(_))));
    }
}
