//! A daemon outlives the process that started it, so it keeps nothing of that process's surroundings: no
//! open files, no file permissions, no priority, no lowered limits.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit},
};

/// The limits that a verb's shell may have lowered. A limit on processor time, memory or the size of files
/// was meant for the verb.
const LIMITS: [(Resource, &str); 7] = [
    (Resource::Cpu, "processor time"),
    (Resource::Fsize, "size of files"),
    (Resource::Data, "data memory"),
    (Resource::As, "memory"),
    (Resource::Rss, "resident memory"),
    (Resource::Nofile, "open files"),
    (Resource::Nproc, "processes"),
];

/// Closes every descriptor above 2. Must be called before this process opens anything. A pipe or a lock of the
/// caller would otherwise stay open for as long as the daemon runs.
#[allow(unsafe_code, reason = "nothing in this process owns a descriptor yet")]
pub(crate) fn close_inherited_files() {
    // SAFETY: this is called before anything is opened, so no descriptor above 2 has an owner here.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return;
    }
    // A kernel before Linux 5.9, or a sandbox that does not know the call.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: as above. The directory that was just read is closed already.
        unsafe { libc::close(descriptor) };
    }
}

/// Takes the daemon's own umask, priority and limits. Must be called once, before other threads run. Returns
/// what could not be changed, for the log.
pub(crate) fn settle() -> Vec<String> {
    // What the daemon creates for itself is its user's alone. A download gets the permissions that its caller
    // asks for.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let mut left = Vec::new();
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    if nice > 0 && rustix::process::setpriority_process(None, 0).is_err() {
        left.push(format!(
            "the nice value {nice}, inherited from the process that started this daemon, can't be reset"
        ));
    }
    for (resource, name) in LIMITS {
        let limit = rustix::process::getrlimit(resource);
        if limit.current == limit.maximum {
            continue;
        }
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = rustix::process::setrlimit(resource, raised) {
            left.push(format!("the limit on {name} can't be raised: {error}"));
        }
    }
    left
}
