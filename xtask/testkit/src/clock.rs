//! Programs whose clock is off. A small library, made with the C compiler, stands before the system's own.

use std::{path::PathBuf, process::Command, sync::OnceLock};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    const char *seconds = getenv("CLOCK_SECONDS");
    if (!failed && id == CLOCK_REALTIME && seconds) now->tv_sec += atol(seconds);
    return failed;
}
"#;

/// The environment of a program whose clock is ahead by this many seconds.
pub fn ahead(seconds: i64) -> [(&'static str, String); 2] {
    [("LD_PRELOAD", library().display().to_string()), ("CLOCK_SECONDS", seconds.to_string())]
}

/// The library. It stays until the machine tidies its temporary files up.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("clock").tempdir().unwrap().keep();
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
        let made = made.expect("a C compiler is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        library
    })
}
