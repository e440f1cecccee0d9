//! Many shares: what they cost while nobody fetches them.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use peer::{engine::ShareSpec, hashing::manifest_of};
use proto::{domain::FileId, reason::Reason};
use testkit::world::{GROUP, World};

/// More than the engine looks at in one go.
const SHARES: u32 = 3_000;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How often the threads of this process have been woken.
fn wake_ups() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    let counted = statuses.filter_map(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    });
    counted.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_shares_hold_no_file_open_and_let_the_program_sleep() {
    let world = World::new();
    let node = world.node("alice").await;
    let path = |number: u32| node.dir.path().join(format!("f{number}"));
    let before = open_files();
    for number in 0..SHARES {
        std::fs::write(path(number), number.to_string()).unwrap();
        let name = format!("f{number}").parse().unwrap();
        let hashed = manifest_of(&path(number), name, &|_| ControlFlow::Continue(())).unwrap();
        let id = blake3::hash(&number.to_le_bytes());
        node.engine
            .share(ShareSpec {
                group: GROUP.parse().unwrap(),
                file: FileId::try_from(&id.as_bytes()[..16]).unwrap(),
                manifest: Arc::new(hashed.manifest),
                path: path(number),
                stamp: Some(hashed.stamp),
                folder: None,
                only: Vec::new(),
            })
            .await
            .unwrap();
    }
    assert_eq!(node.engine.shares().len(), SHARES as usize);
    assert!(open_files() <= before + 8, "{before} files were open, and now {}", open_files());
    // Let the threads that made the shares come to rest, then count.
    let mut clock = tokio::time::interval(Duration::from_secs(4));
    clock.tick().await;
    clock.tick().await;
    let start = wake_ups();
    clock.tick().await;
    let woken = wake_ups() - start;
    assert!(woken < 400, "woken {woken} times in 4 s");
    // Each of them is still looked at.
    for number in [0, SHARES / 2, SHARES - 1] {
        std::fs::write(path(number), "changed").unwrap();
    }
    let changed = || {
        let shares = node.engine.shares();
        let bad = shares.iter().filter(|share| {
            share.problem.as_ref().is_some_and(|problem| problem.reason == Reason::FileChanged)
        });
        bad.count()
    };
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..600 {
        looks.tick().await;
        if changed() == 3 {
            break;
        }
    }
    assert_eq!(changed(), 3);
    node.end().await;
}
