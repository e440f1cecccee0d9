//! A classroom: many join a group by one link and subscribe, each on a host of its own. One file is published, and all
//! have it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Host, Hosts as _, cmd, peer, peer_exits, peer_json, processes::Processes, programs::make_file,
    scenario::scene,
};

const GROUP: &str = "class";
const FILE: &str = "lecture.bin";
/// The teacher's peer.
const TEACHER: usize = 1;
const PASSWORD: &str = "a long password for everybody";
/// How many join at the same time: their passwords are hashed.
const AT_ONCE: usize = 4;
/// How long everything may take from the publication on.
const LONG: Duration = Duration::from_secs(120);
/// How often the students' directories are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The size of a classroom.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// The number of students.
    pub students: usize,
    /// The bytes of the file.
    pub bytes: u64,
    /// The rate of the teacher's uplink in bits per second. `None` for as fast as the machine is.
    pub uplink: Option<u64>,
}

/// What was measured, in seconds from the publication on.
#[derive(Clone, Debug)]
pub struct Figures {
    /// When each student's download had started, sorted.
    pub started: Vec<f64>,
    /// When each student's first piece was on disk, sorted.
    pub first: Vec<f64>,
    /// When each student had the file, sorted.
    pub done: Vec<f64>,
    /// What the teacher sent, headers and all, in copies of the file.
    pub copies: f64,
}

/// A student's place, and when something was seen there, in seconds since 1970.
#[derive(Default)]
struct Student {
    dir: PathBuf,
    started: Option<f64>,
    first: Option<f64>,
    done: Option<f64>,
}

/// Plays it with the programs in `bin`. Prints the figures.
///
/// # Errors
/// Fails if somebody does not get the file, or gets other bytes.
pub fn play(bin: &Path, class: &Class) -> Result<Figures> {
    let Class { students, bytes, uplink } = *class;
    scene(&format!(
        "A classroom: {students} join by one link and subscribe; a file is published, and all have it"
    ));
    let hosts = Processes::in_namespaces(bin, students + 1)?;
    peer_exits(&hosts, 0, TEACHER, &["create-user", "teacher", "--password-stdin"], PASSWORD)?;
    peer_exits(&hosts, 0, TEACHER, &["login", "teacher", "--password-stdin"], PASSWORD)?;
    peer(&hosts, TEACHER, &["create-group", GROUP])?;
    let invitation = peer_json(&hosts, TEACHER, &["invite", GROUP, "--uses", &students.to_string()])?;
    let link = invitation["link"].as_str().context("no link")?.to_owned();
    let joined = Instant::now();
    let numbers: Vec<usize> = (TEACHER + 1..=TEACHER + students).collect();
    let (everywhere, link) = (&hosts, link.as_str());
    thread::scope(|scope| {
        let parts = numbers.chunks(students.div_ceil(AT_ONCE));
        let one_part = |part: &'_ [usize]| part.iter().try_for_each(|&n| enter(everywhere, n, link));
        let working: Vec<_> = parts.map(|part| scope.spawn(move || one_part(part))).collect();
        working.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    println!("  {students} have joined and subscribed in {:.1} s", joined.elapsed().as_secs_f64());

    let original = hosts.files(Host::Peer(TEACHER)).join(FILE);
    make_file(&original, bytes, 30)?;
    if let Some(bits) = uplink {
        hosts.shape(Host::Peer(TEACHER), bits)?;
    }
    let before = hosts.sent(Host::Peer(TEACHER))?;
    let mut watched: Vec<Student> = numbers
        .iter()
        .map(|&n| Student { dir: hosts.files(Host::Peer(n)).join("in"), ..Student::default() })
        .collect();
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&mut watched));
        let shared = peer(&hosts, TEACHER, &["upload", FILE, GROUP]);
        let seen = watching.join().unwrap_or_else(|_| bail!("a thread panicked"));
        shared.and(seen)
    })?;
    let sent = hosts.sent(Host::Peer(TEACHER))? - before;
    let expected = fs::read(&original)?;
    for student in &watched {
        if fs::read(student.dir.join(FILE))? != expected {
            bail!("{} has other bytes than were published", student.dir.display());
        }
    }
    let published = published(&hosts)?;
    let since = |at: fn(&Student) -> Option<f64>| {
        let mut seconds: Vec<f64> = watched.iter().filter_map(at).map(|at| at - published).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    let figures = Figures {
        started: since(|student| student.started),
        first: since(|student| student.first),
        done: since(|student| student.done),
        copies: ratio(sent, bytes),
    };
    figures.print(class);
    Ok(figures)
}

/// Makes a student's account, a member of the group, with a subscription.
fn enter(hosts: &Processes, n: usize, link: &str) -> Result<()> {
    let name = format!("student{n}");
    let join = cmd::output(
        hosts.command(Host::Peer(n), &["peer", "join", link, "--user", &name, "--password-stdin"]),
        PASSWORD.as_bytes(),
    )?;
    if !join.status.success() {
        bail!("{name} could not join: {}", String::from_utf8_lossy(&join.stderr));
    }
    cmd::capture(hosts.command(Host::Peer(n), &["peer", "subscribe", GROUP, "in/"])).map(drop)
}

/// Watches the students' directories until all have the file.
fn watch(students: &mut [Student]) -> Result<()> {
    let start = Instant::now();
    while students.iter().any(|student| student.done.is_none()) {
        if start.elapsed() > LONG {
            let left = students.iter().filter(|student| student.done.is_none()).count();
            bail!("{left} of {} do not have the file after {} s", students.len(), LONG.as_secs());
        }
        for student in students.iter_mut().filter(|student| student.done.is_none()) {
            student.look(now()?);
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

impl Student {
    /// Notes what is in the directory now.
    fn look(&mut self, now: f64) {
        if self.first.is_none() {
            let unfinished = fs::read_dir(self.dir.join(".minitorrent")).into_iter().flatten().flatten();
            let part = unfinished
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|part| part == "part"));
            if let Some(found) = part.and_then(|part| fs::metadata(part).ok()) {
                self.started.get_or_insert(now);
                // The file is sparse until pieces are written.
                if std::os::unix::fs::MetadataExt::blocks(&found) > 0 {
                    self.first = Some(now);
                }
            }
        }
        if self.dir.join(FILE).exists() {
            for seen in [&mut self.started, &mut self.first, &mut self.done] {
                seen.get_or_insert(now);
            }
        }
    }
}

/// When the tracker took the publication in, in seconds since 1970. All hosts have this machine's clock.
fn published(hosts: &Processes) -> Result<f64> {
    // Lists show whole seconds.
    let log = cmd::capture(hosts.command(Host::Tracker, &["tracker-svc", "audit", "--json"]))?;
    let row = log
        .lines()
        .find(|row| row.contains("\"publish_file\""))
        .context("no publication in the audit log")?;
    let row: serde_json::Value = serde_json::from_str(row)?;
    let since = row["at"].as_str().context("no time of publication")?;
    let seconds = cmd::capture(cmd::command("date", &["--date", since, "+%s.%N"]))?;
    Ok(seconds.trim().parse()?)
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn ratio(part: u64, of: u64) -> f64 {
    part as f64 / of as f64
}

impl Figures {
    /// The time after which everybody had the file, in seconds.
    pub fn took(&self) -> f64 {
        self.done.last().copied().unwrap_or_default()
    }

    fn print(&self, class: &Class) {
        let spread = |seconds: &[f64]| {
            let at = |index: usize| seconds.get(index).copied().unwrap_or_default();
            format!("p50 {:.2} s, last {:.2} s", at(seconds.len() / 2), at(seconds.len().saturating_sub(1)))
        };
        println!("  from publication until a download had started: {}", spread(&self.started));
        println!("  until its first piece was on disk:             {}", spread(&self.first));
        println!("  until the file was there:                      {}", spread(&self.done));
        print!("  the teacher's host sent {:.2} copies", self.copies);
        match class.uplink {
            Some(bits) => {
                let least = ratio(8 * class.bytes, bits);
                println!(
                    "; T is {:.2} of T_min, {least:.1} s, in which an uplink of {} Mbit/s sends the file once",
                    self.took() / least,
                    bits / 1_000_000
                );
            }
            None => println!(", without a limit on the uplink"),
        }
    }
}
