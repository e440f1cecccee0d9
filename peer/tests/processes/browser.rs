//! The page in a real browser: Chromium, driven through chromedriver by the WebDriver protocol.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    page::send,
    support::{MIB, Tracker, wait_for},
};

/// The widths in pixels at which every view is looked at: a telephone, a laptop, a large screen.
const WIDTHS: [u32; 3] = [360, 1280, 2560];
/// The key that ends a line, in the WebDriver protocol.
const ENTER: char = '\u{e007}';

/// A browser with one window. Both processes end when this is dropped.
struct Chromium {
    driver: Child,
    address: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts a browser. `None` where it is not installed and can't be.
    #[allow(clippy::print_stderr, reason = "who reads the output must see what was not tested")]
    fn start() -> Option<Self> {
        let profile = tempfile::tempdir().expect("a directory");
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut driver) = started else {
            assert!(!Path::new("/usr/bin/apt-get").exists(), "apt-get install chromium chromium-driver");
            eprintln!("SKIPPED: no chromedriver here, and no apt-get to install it with");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        // Whoever writes to a closed pipe ends.
        std::thread::spawn(move || lines.count());
        let address = format!("127.0.0.1:{}", port.expect("chromedriver names its port"));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", profile]});
        let capabilities = json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let made = browser.call("POST", "/session", &json!({"capabilities": {"alwaysMatch": capabilities}}));
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (address, session) = (&self.address, &self.session);
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let length = body.len();
        let answer = send(
            address,
            &format!(
                "{method} {session}{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        );
        let mut value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 200, "{method} {path}: {value}");
        value["value"].take()
    }

    fn go(&self, url: &str) {
        self.call("POST", "/url", &json!({"url": url}));
    }

    fn url(&self) -> String {
        self.call("GET", "/url", &Value::Null).as_str().expect("an address").to_owned()
    }

    /// Runs a script that may wait, and returns what it returns.
    fn script(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Types into the first element that the selector finds.
    fn types(&self, selector: &str, text: &str) {
        let found = self.call("POST", "/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()?.as_str()).expect("an element");
        self.call("POST", &format!("/element/{id}/value"), &json!({"text": text}));
    }

    /// Waits until the selector finds something on the page as it is, without loading it again.
    fn waits_for(&self, selector: &str) {
        wait_for(&format!("{selector} appears"), || {
            let found = self.script(&format!("return document.querySelector({}) !== null", json!(selector)));
            found.as_bool()?.then_some(())
        });
    }

    /// Takes a picture of the page at each width. Nothing may stick out to the side.
    fn pictures(&self, name: &str) {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        fs::create_dir_all(&directory).expect("made");
        for width in WIDTHS {
            // The window of a headless browser has no frame.
            self.call("POST", "/window/rect", &json!({"width": width, "height": 900}));
            let wide = self.script("return document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{name} is {wide} too wide at {width}");
            let picture = self.call("GET", "/screenshot", &Value::Null);
            let picture =
                data_encoding::BASE64.decode(picture.as_str().expect("text").as_bytes()).expect("base64");
            fs::write(directory.join(format!("{name}-{width}.png")), picture).expect("written");
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if !self.session.is_empty() && TcpStream::connect(&self.address).is_ok() {
            let (address, session) = (&self.address, &self.session);
            send(
                address,
                &format!("DELETE {session} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
            );
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn a_browser_logs_in_by_a_link_and_sees_a_download_finish() {
    let Some(browser) = Chromium::start() else { return };
    let tracker = Tracker::start();
    let ann = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]);
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "<i>größe 文件.mp4", 24 * MIB, 1);
    let link = bob.json("ui")["url"].as_str().expect("a link").to_owned();
    let home = link.split("enter/").next().expect("an address").to_owned();

    browser.go(&home);
    assert_eq!(
        browser.script("return document.body.innerText.trim()"),
        "run `peer ui` for a link to this page"
    );
    browser.go(&link);
    assert_eq!(browser.url(), home, "the link leads to the first page");
    assert_eq!(browser.script("return document.cookie"), "", "no script sees the cookie");
    browser.waits_for("#groups a[href='/group/g1']");
    browser.pictures("first");

    // By the keyboard alone: a place for the file, and the return key.
    browser.go(&format!("{home}group/g1"));
    assert_eq!(browser.script("return document.querySelectorAll('#files i').length"), 0, "a name is text");
    browser.pictures("group");
    let to = bob.path("out/film.mp4");
    browser.script("document.querySelector('#files input[name=to]').value = ''");
    browser.types("#files input[name=to]", &format!("{}{ENTER}", to.display()));
    wait_for("the download runs", || bob.download("g1", "<i>größe 文件.mp4"));

    browser.go(&home);
    browser.waits_for("#downloads [data-state=downloading] svg.map rect");
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

    // Nothing broke the policy, and nothing failed to load.
    let log = browser.call("POST", "/se/log", &json!({"type": "browser"}));
    let severe: Vec<_> =
        log.as_array().expect("a list").iter().filter(|entry| entry["level"] == "SEVERE").collect();
    assert!(
        severe.iter().all(|entry| entry["message"].as_str().is_some_and(|text| text.contains("401"))),
        "{severe:?}"
    );
}
