//! The pages of a peer and of a tracker in a real browser. Pictures of them are left in `target/tmp/page/`.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    chromium::{Chromium, ENTER, TAB},
    support::{MIB, Peer, Tracker, wait_for},
};

/// The most bytes of a page with all its parts.
const WEIGHT: i64 = 150 << 10;

/// Lets the browser in by a link. Returns the address of the first page.
fn enter(browser: &Chromium, peer: &Peer) -> String {
    let link = peer.json("ui")["url"].as_str().expect("a link").to_owned();
    browser.go(&link);
    let home = link.split("enter/").next().expect("an address").to_owned();
    assert_eq!(browser.url(), home, "the link leads to the first page");
    home
}

/// The time of the first paint in milliseconds, the bytes of the page with all its parts, and how much of it has
/// jumped, as browsers count it: without what follows an input or another width.
fn figures(browser: &Chromium) -> (f64, i64, f64) {
    let found = browser.script(
        "const parts = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
           .filter((part) => !part.name.includes('/events'));
         const jumps = new Promise((done) => {
           new PerformanceObserver((list) => done(list.getEntries()
             .filter((jump) => !jump.hadRecentInput).reduce((sum, jump) => sum + jump.value, 0)))
             .observe({type: 'layout-shift', buffered: true});
           setTimeout(() => done(0), 500);
         });
         return jumps.then((jumps) => [
           performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1,
           parts.reduce((sum, part) => sum + part.encodedBodySize, 0), jumps])",
    );
    let number = |at: usize| found[at].as_f64().expect("a number");
    (number(0), number(1) as i64, number(2))
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures are for people")]
fn a_browser_logs_in_by_a_link_and_sees_a_download_finish() {
    let Some(browser) = Chromium::start() else { return };
    let tracker = Tracker::start();
    let ann = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]);
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "<i>größe 文件.mp4", 24 * MIB, 1);
    let link = bob.json("ui")["url"].as_str().expect("a link").to_owned();
    browser.go(link.split("enter/").next().expect("an address"));
    assert_eq!(
        browser.script("return document.body.innerText.trim()"),
        "run `peer ui` for a link to this page"
    );
    let home = enter(&browser, &bob);
    assert_eq!(browser.script("return document.cookie"), "", "no script sees the cookie");
    browser.waits_for("#groups a[href='/group/g1']");
    browser.pictures("first");

    // By the keyboard alone: a place for the file, and the return key.
    browser.go(&format!("{home}group/g1"));
    assert_eq!(browser.script("return document.querySelectorAll('#files i').length"), 0, "a name is text");
    browser.is_accessible("a group");
    browser.pictures("group");
    let to = bob.path("out/film.mp4");
    browser.script("document.querySelector('#files input[name=to]').value = ''");
    browser.types("#files input[name=to]", &format!("{}{ENTER}", to.display()));
    wait_for("the download runs", || bob.download("g1", "<i>größe 文件.mp4"));

    browser.go(&home);
    browser.waits_for("#downloads [data-state=downloading] svg.map rect");
    browser.waits_for("#swarm .in li");
    browser.is_accessible("a download");
    // A part from far ahead is there before the whole is.
    let part = browser.script(
        "return fetch('/read/g1/' + encodeURIComponent('<i>größe 文件.mp4'), \
         {headers: {Range: 'bytes=20000000-20000003'}}).then(async (answer) => \
         [answer.status, [...new Uint8Array(await answer.arrayBuffer())], document.querySelector('[data-state=complete]') === null])",
    );
    let bytes = fs::read(&original).expect("a file");
    assert_eq!(part, json!([206, bytes[20_000_000..20_000_004], true]));
    browser.pictures("download");
    browser.waits_for("#downloads [data-state=complete]");
    assert!(fs::read(&to).expect("a file") == bytes);
    browser.pictures("complete");
    let (paint, weight, jumps) = figures(&browser);
    println!("first paint {paint:.0} ms, {weight} bytes, layout shift {jumps:.3}");
    assert!(paint > 0.0 && weight > 0 && weight <= WEIGHT && jumps < 0.1, "{paint} {weight} {jumps}");
    assert_eq!(browser.faults(), Vec::<Value>::new());
}

#[test]
fn a_group_is_made_and_run_by_the_keyboard_alone() {
    let Some(browser) = Chromium::start() else { return };
    let tracker = Tracker::start_with(&[("TRACKER_METRICS", "127.0.0.1:0")]);
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    let home = enter(&browser, &ann);
    browser.types("input[name=group]", &format!("g1{TAB}{TAB}{ENTER}"));
    browser.waits_for("#groups a[href='/group/g1']");
    bob.ok(&["join-group", "g1"]);
    browser.go(&format!("{home}group/g1"));
    browser.types("#requests button[value=accept]", &ENTER.to_string());
    browser.waits_for("#members [id='m-bob']");
    let path = ann.path("data.wav");
    crate::support::make_file(&path, MIB, 1);
    browser.types("input[name=path]", &format!("{}{ENTER}", path.display()));
    browser.waits_for("#files a[href='/play/g1/data.wav']");
    browser.pictures("owner");
    browser.is_accessible("an owner's group");
    browser.types("input[name=uses]", &format!("2{ENTER}"));
    browser.waits_for("main code");
    browser.pictures("invitation");
    let link = browser.script("return document.querySelector('main code').textContent");
    tracker.user("carol").ok(&["join", link.as_str().expect("a link")]);

    browser.go(&format!("{home}play/g1/data.wav"));
    browser.is_accessible("a file");
    browser.pictures("file");
    browser.types("button[value=verify]", &ENTER.to_string());
    browser.waits_for("main [role=status]");
    let said = browser.script("return document.querySelector('main').innerText");
    assert!(said.as_str().is_some_and(|said| said.contains("is intact")), "{said}");
    browser.go(&format!("{home}checks"));
    browser.waits_for("main .cards li");
    browser.is_accessible("the checks");
    browser.pictures("checks");

    let log = tracker.log();
    let (_, metrics) = log.split_once("metrics at ").expect("an address");
    browser.go(metrics.split("metrics").next().expect("an address"));
    browser.waits_for("#calls");
    browser.is_accessible("the tracker");
    browser.pictures("tracker");
    assert_eq!(browser.faults(), Vec::<Value>::new());
}

/// Makes a film of a minute, about 6 MiB. `None` where that is not possible.
#[allow(clippy::print_stderr, reason = "who reads the output must see what was not tested")]
fn film(path: &Path) -> Option<()> {
    let args = "-loglevel error -f lavfi -i testsrc2=size=320x240:rate=15 -t 60 -c:v libx264 -preset ultrafast -qp 12 \
                -pix_fmt yuv420p -g 15";
    let Ok(made) = Command::new("ffmpeg").args(args.split_whitespace()).arg(path).output() else {
        assert!(!Path::new("/usr/bin/apt-get").exists(), "apt-get install ffmpeg");
        eprintln!("SKIPPED: no ffmpeg here, and no apt-get to install it with");
        return None;
    };
    assert!(made.status.success(), "{made:?}");
    Some(())
}

#[test]
fn a_film_plays_and_seeks_while_it_arrives() {
    let Some(browser) = Chromium::start() else { return };
    let tracker = Tracker::start();
    let ann = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "300KiB")]);
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    if film(&ann.path("film.mp4")).is_none() {
        return;
    }
    ann.ok(&["upload", "film.mp4", "g1"]);
    let home = enter(&browser, &bob);
    bob.ok(&["download", "g1", "film.mp4", "out/", "--detach"]);
    browser.go(&format!("{home}play/g1/film.mp4"));
    let played = browser.script(
        "const film = document.querySelector('video');
         const until = (what, is) => new Promise((done) => {
           const look = () => is() && done();
           film.addEventListener(what, look);
           look();
         });
         film.muted = true;
         return (async () => {
           await film.play();
           await until('timeupdate', () => film.currentTime > 0.5);
           film.currentTime = 0.8 * film.duration;
           await until('timeupdate', () => !film.seeking && film.currentTime > 0.8 * film.duration + 0.2);
           return [film.error, film.videoWidth, document.querySelector('#download [data-state=complete]') === null];
         })()",
    );
    assert_eq!(played, json!([null, 320, true]), "it plays before it is there");
    browser.pictures("film");
    bob.waits_until_complete("g1", "film.mp4");
    crate::support::assert_same(&ann.path("film.mp4"), &bob.path("out/film.mp4"));
    assert_eq!(browser.faults(), Vec::<Value>::new());
}
