//! The trackers of one network, as a person writes them: addresses with commas between them, or a file with one
//! address a line.

use std::{fmt, path::Path};

/// The most trackers of one network.
const MAX_TRACKERS: usize = 16;
/// The longest file of addresses, in bytes.
const LONGEST_FILE: u64 = 64 << 10;

/// The trackers of one network, at least one, without repeats. Each is `https://host:port`, in the form that
/// [`tracker_url`] returns. As text, they have commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrackerList(Vec<String>);

impl TrackerList {
    /// Reads addresses with commas between them, or the path of a file with one address a line. A relative path
    /// starts from `directory`. In a file, `https://` may be left out, and a line that starts with `#` says
    /// nothing.
    ///
    /// # Errors
    /// Fails with the address or the file that can't be used.
    pub(crate) fn read(text: &str, directory: &Path) -> Result<Self, String> {
        if text.contains("://") {
            return Self::parse(text);
        }
        let path = directory.join(text);
        let not_a_file = || {
            format!(
                "{text:?} is neither an address, like https://HOST:PORT, nor a file with one address a line"
            )
        };
        let found =
            std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).ok_or_else(not_a_file)?;
        let shown = path.display();
        if found.len() > LONGEST_FILE {
            return Err(format!("{shown} is too long to be a list of trackers"));
        }
        let lines = std::fs::read_to_string(&path).map_err(|error| format!("{shown}: {error}"))?;
        Self::of_lines(&lines).map_err(|error| format!("{shown}: {error}"))
    }

    /// Reads addresses with commas between them.
    ///
    /// # Errors
    /// Fails with the first address that can't be used.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::of(text.split(',').map(|url| tracker_url(url.trim())))
    }

    /// Reads one address a line.
    ///
    /// # Errors
    /// Fails with the first address that can't be used.
    pub(crate) fn of_lines(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self::of(lines.map(|line| match line.contains("://") {
            true => tracker_url(line),
            false => tracker_url(&format!("https://{line}")),
        }))
    }

    fn of(urls: impl Iterator<Item = Result<String, String>>) -> Result<Self, String> {
        let mut all = Vec::new();
        for url in urls {
            let url = url?;
            if !all.contains(&url) {
                all.push(url);
            }
            if all.len() > MAX_TRACKERS {
                return Err(format!("a network has at most {MAX_TRACKERS} trackers"));
            }
        }
        if all.is_empty() { Err("there is no address of a tracker".to_owned()) } else { Ok(Self(all)) }
    }

    /// The trackers' URLs.
    pub(crate) fn urls(&self) -> &[String] {
        &self.0
    }

    /// The URLs, one a line, as [`Self::of_lines`] reads them.
    pub(crate) fn lines(&self) -> String {
        self.0.iter().map(|url| format!("{url}\n")).collect()
    }

    /// Whether both lists have the same trackers, in any order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|url| other.0.contains(url))
    }

    /// Whether a tracker is in both lists, so that they are of one network.
    pub(crate) fn shares_one(&self, other: &Self) -> bool {
        self.0.iter().any(|url| other.0.contains(url))
    }
}

impl fmt::Display for TrackerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Normalizes a tracker's URL: scheme, host and port, without a slash at the end.
///
/// # Errors
/// Fails when it is not such a URL, or when it would send passwords unencrypted to another machine.
pub(crate) fn tracker_url(text: &str) -> Result<String, String> {
    let form = "write a tracker as https://HOST:PORT";
    let uri: http::Uri = text.parse().map_err(|error| format!("{text:?}: {error}; {form}"))?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(format!("{text:?} is not a URL; {form}"));
    };
    if uri.path() != "/" || uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@'))
    {
        return Err(format!("{text:?} contains more than a host and a port; {form}"));
    }
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match scheme {
        "https" => {}
        "http" if local => {}
        "http" => {
            return Err(format!(
                "{text:?} uses http://, which is only permitted for a tracker on this machine; use https://"
            ));
        }
        _ => return Err(format!("{text:?} has the unknown scheme {scheme:?}; {form}")),
    }
    let port = uri.port_u16().unwrap_or(7700);
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

/// The scheme, the host without brackets, and the port of a tracker's URL. The URL was checked when it was
/// resolved.
pub(crate) fn url_parts(url: &str) -> (&str, &str, u16) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "7700"));
    (scheme, host.trim_matches(['[', ']']), port.parse().unwrap_or(7700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_typed_or_read_from_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (here, file) = (directory.path(), directory.path().join("tracker_info.txt"));
        let list = |text: &str| TrackerList::read(text, here).map(|list| list.to_string());
        assert_eq!(list("https://A:1, https://b,https://a:1/").as_deref(), Ok("https://a:1,https://b:7700"));
        std::fs::write(&file, "# ours\nhttps://a:1\n\n  10.0.0.2:7701 \nb\n").expect("written");
        assert_eq!(
            list("tracker_info.txt").as_deref(),
            Ok("https://a:1,https://10.0.0.2:7701,https://b:7700")
        );
        let read = TrackerList::read("tracker_info.txt", here).expect("good");
        assert_eq!(TrackerList::of_lines(&read.lines()).as_ref(), Ok(&read));
        std::fs::write(&file, "ftp://a:1").expect("written");
        let many: Vec<_> = (1..=17).map(|port| format!("https://a:{port}")).collect();
        for (text, part) in [
            ("tracker_info.txt", "tracker_info.txt: \"ftp://a:1\""),
            ("absent.txt", "neither an address"),
            (".", "neither an address"),
            ("", "neither an address"),
            ("https://a:1,", "\"\""),
            ("https://a:1,b", "\"b\""),
            (&many.join(","), "at most 16"),
        ] {
            let error = list(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        std::fs::write(&file, "\n# none\n").expect("written");
        assert!(list("tracker_info.txt").expect_err("empty").contains("no address"));
    }

    #[test]
    fn lists_are_compared_by_what_is_in_them() {
        let list = |text| TrackerList::parse(text).expect("a list");
        let both = list("https://a:1,https://b:1");
        assert!(both.is_same(&list("https://b:1,https://a:1")));
        assert!(!both.is_same(&list("https://a:1")) && both.shares_one(&list("https://a:1")));
        assert!(!both.shares_one(&list("https://c:1")));
    }

    #[test]
    fn trackers_are_spelled_one_way() {
        for (typed, url) in [
            ("https://127.0.0.1:7700", "https://127.0.0.1:7700"),
            ("https://Tracker:7700/", "https://tracker:7700"),
            ("https://tracker", "https://tracker:7700"),
            ("http://localhost:1", "http://localhost:1"),
            ("https://[::1]:2", "https://[::1]:2"),
        ] {
            assert_eq!(tracker_url(typed).as_deref(), Ok(url));
        }
        for typed in [
            "",
            "tracker",
            "tracker:7700",
            "ftp://t:1",
            "http://example.org:1",
            "https://t/x",
            "https://u:p@t:1",
        ] {
            assert!(tracker_url(typed).is_err(), "{typed}");
        }
    }
}
