//! What the fuzz targets in `xtask/fuzz` reach of this crate beyond its public items. Compiled for them alone.

use std::path::Path;

use crate::{config, tracker::list::tracker_url as tracker_url_of};
pub use crate::{download::parse as answer, storage::read_again as state};

/// Resolves the settings of this configuration file.
pub fn config(file: &Path) {
    let flags = [("config", file.display().to_string()), ("home", "/nowhere".to_owned())];
    let directory = file.parent().unwrap_or(file).to_owned();
    let _ = config::Config::resolve(flags.into_iter().collect(), &|_| None, directory);
}

/// The one spelling of a tracker's URL.
pub fn tracker_url(text: &str) -> Option<String> {
    tracker_url_of(text).ok()
}
