//! A real browser: Chromium, driven through chromedriver by the WebDriver protocol.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{page::send, support::wait_for};

/// The widths in pixels at which every view is looked at: a telephone, a laptop, a large screen.
const WIDTHS: [u32; 3] = [360, 1280, 2560];
/// Keys, in the WebDriver protocol.
pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const TAB: char = '\u{e004}';

/// A browser with one window. Both processes end when this is dropped.
pub(crate) struct Chromium {
    driver: Child,
    address: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts a browser. `None` where it is not installed and can't be.
    #[allow(clippy::print_stderr, reason = "who reads the output must see what was not tested")]
    pub(crate) fn start() -> Option<Self> {
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
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required", profile]});
        let capabilities = json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let made = browser.call("POST", "/session", &json!({"capabilities": {"alwaysMatch": capabilities}}));
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Value {
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

    pub(crate) fn go(&self, url: &str) {
        self.call("POST", "/url", &json!({"url": url}));
    }

    pub(crate) fn url(&self) -> String {
        self.call("GET", "/url", &Value::Null).as_str().expect("an address").to_owned()
    }

    /// Runs a script that may wait, and returns what it returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Types into the first element that the selector finds.
    pub(crate) fn types(&self, selector: &str, text: &str) {
        let found = self.call("POST", "/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()?.as_str()).expect("an element");
        self.call("POST", &format!("/element/{id}/value"), &json!({"text": text}));
    }

    /// Waits until the selector finds something on the page as it is, without loading it again.
    pub(crate) fn waits_for(&self, selector: &str) {
        wait_for(&format!("{selector} appears"), || {
            let found = self.script(&format!("return document.querySelector({}) !== null", json!(selector)));
            found.as_bool()?.then_some(())
        });
    }

    /// Takes a picture of the page at each width. Nothing may stick out to the side.
    pub(crate) fn pictures(&self, name: &str) {
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

    /// What the browser's log says went wrong, apart from pages that were refused on purpose.
    pub(crate) fn faults(&self) -> Vec<Value> {
        let log = self.call("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().cloned().unwrap_or_default();
        let is_fault = |entry: &Value| {
            let text = entry["message"].as_str().unwrap_or_default();
            entry["level"] == "SEVERE" && !text.contains("401")
        };
        entries.into_iter().filter(is_fault).collect()
    }

    /// Checks the page as it is by the rules of axe-core, if `.ci/run` has installed it.
    #[allow(clippy::print_stderr, reason = "who reads the output must see what was not tested")]
    pub(crate) fn is_accessible(&self, name: &str) {
        let Some(rules) = axe() else {
            eprintln!("SKIPPED: no axe-core under target/tools; `.ci/run` installs it");
            return;
        };
        let found = self.script(&format!(
            "{rules};\nreturn axe.run(document, {{resultTypes: ['violations']}}).then((found) => \
             found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html)]))"
        ));
        assert_eq!(found, json!([]), "{name}");
    }
}

/// The source of axe-core.
fn axe() -> Option<String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/lib");
    let versions = fs::read_dir(tools).ok()?.flatten();
    let place = "site-packages/axe_core_python/axe.min.js";
    versions.map(|version| version.path().join(place)).find_map(|path| fs::read_to_string(path).ok())
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
