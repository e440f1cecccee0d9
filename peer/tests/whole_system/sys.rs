//! Time, randomness and threads under the test's control, without a change to the product.
//!
//! This file defines the C library's functions for the clock, random bytes, futexes, threads and epoll. The
//! linker prefers these over the library's own, so everything in the process calls them: the standard
//! library, tokio, the cryptography and SQLite. On the threads of a simulation they behave as follows; on all
//! others they pass the call on.
//!
//! - The clock shows the virtual time of the host that the thread works for. It stands still while anything
//!   can run. When the thread of the runtimes waits in `epoll_wait`, nothing is ready, and every other thread
//!   waits too, the host's time jumps to the next timer.
//! - Random bytes come from a generator with the test's seed. The seeds of hash maps are random bytes.
//! - One thread runs at a time. It passes the turn on only where it waits: for a futex, for another thread, in
//!   `epoll_wait`. The thread of the runtimes takes the turn last. So the threads for blocking work and those
//!   of SQLite run at a fixed place in the order of events, and in no virtual time.

#![allow(unsafe_code, reason = "the C library's functions are replaced by their C signatures")]

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, c_int, c_long, c_uint, c_void},
    mem::transmute,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// The most hosts of a simulation.
pub(crate) const HOSTS: usize = 16;

/// The monotonic clock at the start, in seconds. It is far ahead of the kernel's, so that the kernel never
/// finds that a deadline has passed.
const BOOT: i64 = 1_000_000_000;
/// The wall clock at the start, in seconds since 1970.
pub(crate) const EPOCH: i64 = 1_780_000_000;

const BILLION: u64 = 1_000_000_000;

thread_local! {
    /// The host that this thread works for; `None` on threads outside the simulation.
    static HOST: Cell<Option<usize>> = const { Cell::new(None) };
    /// The thread's number. Number 0 drives the runtimes.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    /// Set while this file's own code runs. Its calls go to the C library.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

static NOW: [AtomicU64; HOSTS] = [const { AtomicU64::new(0) }; HOSTS];
static STEPPED: [AtomicI64; HOSTS] = [const { AtomicI64::new(0) }; HOSTS];
static DICE: AtomicU64 = AtomicU64::new(0);

static TURN: Mutex<Turn> = Mutex::new(Turn::new());
static PASSED_ON: Condvar = Condvar::new();

/// Who runs, and who could.
struct Turn {
    taken: bool,
    /// Threads that want the turn.
    ready: BTreeSet<u64>,
    /// Threads that were woken or started and have not asked for the turn yet.
    coming: usize,
    /// The number of the last thread.
    threads: u64,
    /// Waiters at each futex.
    waiting: BTreeMap<usize, usize>,
    /// Waiters at each futex that were woken and have not returned yet.
    woken: BTreeMap<usize, usize>,
}

impl Turn {
    const fn new() -> Self {
        Self {
            taken: false,
            ready: BTreeSet::new(),
            coming: 0,
            threads: 0,
            waiting: BTreeMap::new(),
            woken: BTreeMap::new(),
        }
    }

    fn lock() -> MutexGuard<'static, Self> {
        TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Runs this file's own code: what it calls goes to the C library.
fn within<T>(act: impl FnOnce() -> T) -> T {
    WITHIN.set(true);
    let value = act();
    WITHIN.set(false);
    value
}

fn release(turn: &mut Turn) {
    turn.taken = false;
    PASSED_ON.notify_all();
}

fn acquire(mut turn: MutexGuard<'_, Turn>) {
    let me = THREAD.get();
    turn.ready.insert(me);
    // A thread that waits for this one to come may be the next.
    PASSED_ON.notify_all();
    while turn.taken || turn.coming > 0 || next(&turn) != Some(me) {
        turn = PASSED_ON.wait(turn).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    turn.ready.remove(&me);
    turn.taken = true;
}

/// The lowest number first, and the thread of the runtimes last.
fn next(turn: &Turn) -> Option<u64> {
    turn.ready.iter().copied().find(|thread| *thread != 0).or_else(|| turn.ready.first().copied())
}

fn simulated() -> Option<usize> {
    if WITHIN.get() { None } else { HOST.get() }
}

/// Makes the calling thread the one that drives the runtimes of a simulation.
pub(crate) fn begin(seed: u64) {
    DICE.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d, SeqCst);
    within(|| acquire(Turn::lock()));
    HOST.set(Some(0));
}

/// Works for this host from now on.
pub(crate) fn enter(host: usize) {
    HOST.set(Some(host));
}

/// The current host.
pub(crate) fn host() -> usize {
    HOST.get().unwrap_or_default()
}

/// Ends the simulation on this thread. Other threads of it wait forever.
pub(crate) fn end() {
    HOST.set(None);
}

/// The virtual time of the current host since the start, in nanoseconds.
pub(crate) fn now() -> u64 {
    HOST.get().map_or(0, |host| NOW[host].load(SeqCst))
}

/// Sets a host's time. It must not go back.
pub(crate) fn set_now(host: usize, now: u64) {
    NOW[host].store(now, SeqCst);
}

/// Steps a host's wall clock.
pub(crate) fn step_clock(host: usize, by: Duration, back: bool) {
    let by = by.as_nanos() as i64;
    STEPPED[host].fetch_add(if back { -by } else { by }, SeqCst);
}

/// Sets a host's wall clock right again.
pub(crate) fn right_clock(host: usize) {
    STEPPED[host].store(0, SeqCst);
}

/// Lets every other thread run until it waits.
pub(crate) fn settle() {
    within(|| {
        release(&mut Turn::lock());
        acquire(Turn::lock());
    });
}

/// Resolves after this much virtual time. Nothing waits for it: it is the time that a simulated thing takes.
pub(crate) fn pass(time: Duration) -> Sleep {
    // Virtual time, as all time here.
    sleep(time)
}

fn random() -> u64 {
    // SplitMix64.
    let mut z = DICE.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The C library's own function of this name.
fn real(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let mut found = cache.load(SeqCst);
    if found.is_null() {
        // SAFETY: the name ends with a zero.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        assert!(!found.is_null(), "the C library has {name:?}");
        cache.store(found, SeqCst);
    }
    found
}

macro_rules! real {
    ($name:literal, $type:ty) => {{
        static CACHE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
        // SAFETY: the type is that of the C library's function.
        unsafe { transmute::<*mut c_void, $type>(real(&CACHE, $name)) }
    }};
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let Some(host) = simulated() else {
        let real =
            real!(c"clock_gettime", unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int);
        // SAFETY: the arguments are the caller's.
        return unsafe { real(clock, time) };
    };
    let now = NOW[host].load(SeqCst) as i64;
    let (start, since) = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => (EPOCH, now + STEPPED[host].load(SeqCst)),
        _ => (BOOT, now),
    };
    let billion = BILLION as i64;
    // SAFETY: the caller passes a place for the time.
    unsafe {
        (*time).tv_sec = start + since.div_euclid(billion);
        (*time).tv_nsec = since.rem_euclid(billion);
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(into: *mut c_void, length: usize, flags: c_uint) -> isize {
    if simulated().is_none() {
        let real = real!(c"getrandom", unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize);
        // SAFETY: the arguments are the caller's.
        return unsafe { real(into, length, flags) };
    }
    // SAFETY: the caller passes a buffer of that length.
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), length) };
    for chunk in into.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
    length as isize
}

type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// In C this function takes any number of arguments. They are passed in the same registers.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let real = real!(c"syscall", Syscall);
    if simulated().is_none() {
        // SAFETY: the arguments are the caller's.
        return unsafe { real(number, a, b, c, d, e, f) };
    }
    match number {
        // SAFETY: the arguments are those of getrandom.
        libc::SYS_getrandom => unsafe { getrandom(a as *mut c_void, b, c as c_uint) as c_long },
        libc::SYS_futex => {
            let operation = b as c_int & 127;
            if operation == libc::FUTEX_WAIT || operation == libc::FUTEX_WAIT_BITSET {
                within(|| {
                    let mut turn = Turn::lock();
                    *turn.waiting.entry(a).or_default() += 1;
                    release(&mut turn);
                });
                // SAFETY: the arguments are the caller's, and so is errno.
                let (answer, error) = unsafe { (real(number, a, b, c, d, e, f), *libc::__errno_location()) };
                within(|| {
                    let mut turn = Turn::lock();
                    if take(&mut turn.woken, a, 1) == 1 {
                        turn.coming -= 1;
                    } else {
                        take(&mut turn.waiting, a, 1);
                    }
                    acquire(turn);
                });
                // SAFETY: errno belongs to this thread.
                unsafe { *libc::__errno_location() = error };
                return answer;
            }
            if operation == libc::FUTEX_WAKE || operation == libc::FUTEX_WAKE_BITSET {
                within(|| {
                    let mut turn = Turn::lock();
                    let count = take(&mut turn.waiting, a, c);
                    if count > 0 {
                        *turn.woken.entry(a).or_default() += count;
                        turn.coming += count;
                    }
                });
            }
            // SAFETY: the arguments are the caller's.
            unsafe { real(number, a, b, c, d, e, f) }
        }
        // SAFETY: the arguments are the caller's.
        _ => unsafe { real(number, a, b, c, d, e, f) },
    }
}

/// Takes up to `count` from an entry. Returns how many were taken.
fn take(counts: &mut BTreeMap<usize, usize>, key: usize, count: usize) -> usize {
    let Some(entry) = counts.get_mut(&key) else { return 0 };
    let taken = count.min(*entry);
    *entry -= taken;
    if *entry == 0 {
        counts.remove(&key);
    }
    taken
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

/// A thread that is to be started.
struct Thread {
    start: Start,
    argument: *mut c_void,
    host: usize,
    number: u64,
}

extern "C" fn run(thread: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` below made it, and gives it to this function alone.
    let thread = unsafe { Box::from_raw(thread.cast::<Thread>()) };
    THREAD.set(thread.number);
    within(|| {
        let mut turn = Turn::lock();
        turn.coming -= 1;
        acquire(turn);
    });
    HOST.set(Some(thread.host));
    let result = (thread.start)(thread.argument);
    HOST.set(None);
    within(|| release(&mut Turn::lock()));
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    id: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let real = real!(c"pthread_create", Create);
    let Some(host) = simulated() else {
        // SAFETY: the arguments are the caller's.
        return unsafe { real(id, attributes, start, argument) };
    };
    within(|| {
        let number = {
            let mut turn = Turn::lock();
            turn.coming += 1;
            turn.threads += 1;
            turn.threads
        };
        let thread = Box::into_raw(Box::new(Thread { start, argument, host, number }));
        // SAFETY: the arguments are the caller's, and `run` takes the thread.
        let answer = unsafe { real(id, attributes, run, thread.cast()) };
        if answer != 0 {
            Turn::lock().coming -= 1;
        }
        answer
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_join(thread: libc::pthread_t, value: *mut *mut c_void) -> c_int {
    let real = real!(c"pthread_join", unsafe extern "C" fn(libc::pthread_t, *mut *mut c_void) -> c_int);
    if simulated().is_none() {
        // SAFETY: the arguments are the caller's.
        return unsafe { real(thread, value) };
    }
    within(|| {
        release(&mut Turn::lock());
        // SAFETY: the arguments are the caller's.
        let answer = unsafe { real(thread, value) };
        acquire(Turn::lock());
        answer
    })
}

type EpollWait = unsafe extern "C" fn(c_int, *mut libc::epoll_event, c_int, c_int) -> c_int;

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    let real = real!(c"epoll_wait", EpollWait);
    let Some(host) = simulated() else {
        // SAFETY: the arguments are the caller's.
        return unsafe { real(epoll, events, most, timeout) };
    };
    settle();
    // SAFETY: the arguments are the caller's.
    let ready = unsafe { real(epoll, events, most, 0) };
    if ready == 0 && timeout != 0 {
        assert!(timeout > 0, "host {host} waits for something that never comes");
        NOW[host].fetch_add(timeout as u64 * 1_000_000, SeqCst);
    }
    ready
}
