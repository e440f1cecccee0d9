//! The programs that are packaged.

/// A program and its package.
pub(crate) struct Program {
    /// The binary and the crate.
    pub(crate) name: &'static str,
    /// The folder of the crate.
    pub(crate) folder: &'static str,
    /// The package, its service and its user.
    pub(crate) package: &'static str,
    /// The settings of the service, within the folder `dist` of the crate and within /etc/minitorrent.
    pub(crate) settings: &'static str,
}

pub(crate) const PEER: Program =
    Program { name: "peer", folder: "peer", package: "minitorrent-peer", settings: "peer.toml" };
pub(crate) const TRACKER: Program = Program {
    name: "tracker-svc",
    folder: "tracker-svc",
    package: "minitorrent-tracker",
    settings: "tracker.toml",
};
pub(crate) const PROGRAMS: [Program; 2] = [TRACKER, PEER];
