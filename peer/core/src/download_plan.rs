//! Decides how a request for a download is carried out: by attaching to a download that runs, by resuming or
//! starting one, by copying a complete file of this peer, or by comparing the file at the destination.
//!
//! The decision is made twice. [`plan`] decides before the manifest is fetched, and again afterwards, because
//! fetching takes time. [`start`] then takes into account whether the name still stands for the same content.

/// What this peer knows about the requested file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A download of it is not complete.
    Unfinished {
        /// The download has the requested destination.
        is_here: bool,
        /// The download runs, or has just completed.
        runs: bool,
    },
    /// This peer has downloaded or shared it.
    Whole {
        /// Its path is the requested destination.
        is_here: bool,
        /// The file at its path is the one that this peer put there.
        is_intact: bool,
    },
}

/// What is found at the requested destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file of the length of the known file.
    SameLength,
    /// Anything else.
    Other,
}

/// The way to carry out a request for a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Do nothing: the download runs, or the file is in place.
    Attach,
    /// Start the download, and continue with what is on disk.
    Resume,
    /// Start the download from nothing.
    Fresh,
    /// Copy the file: it is complete at another place.
    Copy,
    /// Compare the file at the destination with the manifest. The request succeeds if they match.
    Compare,
    /// Take the file at the destination back as unfinished data, and fetch its bad pieces.
    Repair,
}

/// The reason why a request for a download is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another file is at the destination.
    DestinationExists,
    /// The file is being downloaded to another destination.
    DownloadingElsewhere,
}

/// The next step, once the manifest of the name's present content is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Do nothing.
    Attach,
    /// Continue with what is on disk.
    Resume,
    /// Delete what was downloaded of the old content, then start from nothing.
    Replace,
    /// Start from nothing.
    Fresh,
    /// Copy the complete file.
    Copy,
    /// Take the file back as unfinished data.
    Repair,
}

/// Decides what to do about a request for a file. `repair` is true if the user wants the copy that this peer
/// has at the destination to be mended.
///
/// # Errors
/// Fails when something is in the way. Nothing at a destination is overwritten, except what this peer put
/// there itself and `repair` asks for.
///
/// ```
/// use peer_core::download_plan::{Found, Known, Plan, Refused, plan};
///
/// assert_eq!(plan(None, Found::Nothing, false), Ok(Plan::Fresh));
/// assert_eq!(plan(None, Found::Other, false), Err(Refused::DestinationExists));
/// let moved = Known::Whole { is_here: true, is_intact: false };
/// assert_eq!(plan(Some(moved), Found::Nothing, false), Ok(Plan::Fresh), "the user deleted the file");
/// ```
pub fn plan(known: Option<Known>, found: Found, repair: bool) -> Result<Plan, Refused> {
    match (known, found) {
        // A disk can lose bytes and keep the file's times, so a copy that looks intact is mended too.
        (Some(Known::Whole { is_here: true, .. }), Found::SameLength | Found::Other) if repair => {
            Ok(Plan::Repair)
        }
        (Some(Known::Unfinished { is_here: false, .. }), _) => Err(Refused::DownloadingElsewhere),
        (Some(Known::Unfinished { runs: true, .. }), _) => Ok(Plan::Attach),
        (Some(Known::Unfinished { .. }), Found::Nothing) => Ok(Plan::Resume),
        (Some(Known::Whole { is_here: true, is_intact: true }), _) => Ok(Plan::Attach),
        // Starting from nothing would end the sharing of a complete copy, perhaps the only one.
        (Some(Known::Whole { is_intact: true, .. }), Found::Nothing) => Ok(Plan::Copy),
        // The user moved or deleted the file.
        (Some(Known::Whole { .. }) | None, Found::Nothing) => Ok(Plan::Fresh),
        (Some(Known::Whole { .. }), Found::SameLength) => Ok(Plan::Compare),
        (Some(Known::Unfinished { .. }) | None, Found::SameLength) | (_, Found::Other) => {
            Err(Refused::DestinationExists)
        }
    }
}

/// Decides the next step of a plan, once the manifest was fetched. `is_current` is true if the name still
/// stands for the content that this peer knows. A name can be published again with other content.
///
/// # Errors
/// Fails when a file appeared at the destination while the manifest was fetched.
pub fn start(plan: Plan, is_current: bool) -> Result<Start, Refused> {
    match plan {
        Plan::Attach => Ok(Start::Attach),
        Plan::Repair if is_current => Ok(Start::Repair),
        Plan::Compare | Plan::Repair => Err(Refused::DestinationExists),
        Plan::Copy if is_current => Ok(Start::Copy),
        Plan::Resume if is_current => Ok(Start::Resume),
        Plan::Resume => Ok(Start::Replace),
        Plan::Copy | Plan::Fresh => Ok(Start::Fresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_FOUND: [Found; 3] = [Found::Nothing, Found::SameLength, Found::Other];

    fn unfinished(is_here: bool, runs: bool) -> Option<Known> {
        Some(Known::Unfinished { is_here, runs })
    }

    fn whole(is_here: bool, is_intact: bool) -> Option<Known> {
        Some(Known::Whole { is_here, is_intact })
    }

    #[test]
    fn every_case_has_its_plan() {
        let exists = Err(Refused::DestinationExists);
        let elsewhere = Err(Refused::DownloadingElsewhere);
        // What is found: nothing, a file of the same length, anything else.
        for (known, expected) in [
            (None, [Ok(Plan::Fresh), exists, exists]),
            (unfinished(true, true), [Ok(Plan::Attach); 3]),
            (unfinished(true, false), [Ok(Plan::Resume), exists, exists]),
            (unfinished(false, true), [elsewhere; 3]),
            (unfinished(false, false), [elsewhere; 3]),
            (whole(true, true), [Ok(Plan::Attach); 3]),
            (whole(true, false), [Ok(Plan::Fresh), Ok(Plan::Compare), exists]),
            (whole(false, true), [Ok(Plan::Copy), Ok(Plan::Compare), exists]),
            (whole(false, false), [Ok(Plan::Fresh), Ok(Plan::Compare), exists]),
        ] {
            assert_eq!(ALL_FOUND.map(|found| plan(known, found, false)), expected, "{known:?}");
            let repaired = match known {
                Some(Known::Whole { is_here: true, .. }) => [expected[0], Ok(Plan::Repair), Ok(Plan::Repair)],
                _ => expected,
            };
            assert_eq!(ALL_FOUND.map(|found| plan(known, found, true)), repaired, "{known:?}");
        }
    }

    #[test]
    fn other_content_of_the_name_is_downloaded_from_nothing() {
        assert_eq!(start(Plan::Copy, true), Ok(Start::Copy));
        assert_eq!(start(Plan::Copy, false), Ok(Start::Fresh));
        assert_eq!(start(Plan::Resume, true), Ok(Start::Resume));
        assert_eq!(start(Plan::Resume, false), Ok(Start::Replace));
        assert_eq!(start(Plan::Repair, true), Ok(Start::Repair));
        assert_eq!(start(Plan::Repair, false), Err(Refused::DestinationExists));
        for is_current in [true, false] {
            assert_eq!(start(Plan::Attach, is_current), Ok(Start::Attach));
            assert_eq!(start(Plan::Fresh, is_current), Ok(Start::Fresh));
            assert_eq!(start(Plan::Compare, is_current), Err(Refused::DestinationExists));
        }
    }
}
