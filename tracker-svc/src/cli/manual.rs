//! What the manual page says besides the commands and their flags.

use program::man::Extra;

/// The sections of the manual page that the flags do not give.
pub(super) const EXTRA: Extra = Extra {
    exit_status: &[
        ("0", "Done. A tracker that serves ends with 0 after SIGTERM and SIGINT."),
        ("1", "The command failed."),
        ("2", "The command line or a setting is wrong."),
    ],
    environment: &[
        ("TRACKER_URL", "The tracker that `health` asks"),
        ("TRACKER_CA", "The authority's certificate for `health`"),
    ],
    files: &[
        ("tracker.db", "In the data directory: accounts, groups and files"),
        ("ca.pem", "In the data directory: the authority's certificate, the one file to hand out"),
        (
            "ca.key, keys.json",
            "In the data directory: the authority's key, and the keys that sign tickets; secret",
        ),
        ("config.toml", "In the data directory: the settings, named as the flags"),
    ],
    examples: "tracker-svc serve --listen 0.0.0.0:7700 --tls-name files.example.org --data-dir tracker-data\n\
               tracker-svc health --tracker https://127.0.0.1:7700 --ca tracker-data/ca.pem\n\
               tracker-svc backup --data-dir tracker-data tracker.backup\n\
               tracker-svc user disable ann --data-dir tracker-data\n\
               tracker-svc audit --since 2h --json",
};
