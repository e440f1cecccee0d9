//! Reading a file before all of it is there.

use std::{ops::Range, sync::Arc};

use proto::domain::{
    FileId, FileName, GroupId,
    folder::{EntryKind, Folder},
};

use super::Agent;
use crate::{
    engine::Reader,
    error::{PeerError, ReadError},
    library::Entry,
    tracker::manifests,
};

/// A file of this peer that can be read, complete or not.
pub(crate) struct Readable {
    /// The id of the file or of the folder that it is in.
    pub file: FileId,
    /// Where it lies in the bytes that the manifest describes.
    place: Range<u64>,
    name: String,
}

impl Readable {
    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.place.end - self.place.start
    }

    /// The bytes from `offset` on, at most `length`, as the manifest counts them.
    ///
    /// # Errors
    /// Fails when `offset` is after the end.
    fn part(&self, offset: u64, length: Option<u64>) -> Result<Range<u64>, ReadError> {
        let size = self.size();
        if offset > size {
            return Err(ReadError::AfterEnd { name: self.name.clone(), offset, size });
        }
        let end = length.and_then(|length| offset.checked_add(length)).map_or(size, |end| end.min(size));
        Ok(self.place.start + offset..self.place.start + end)
    }
}

impl Agent {
    /// Finds a file that this peer has or downloads. `path` names a file of a folder, and is empty for a plain file.
    /// Waits until the files of the folder are known.
    ///
    /// # Errors
    /// Fails when this peer has nothing of it: with the tracker's refusal, if there is one.
    pub(crate) async fn readable(
        &self,
        group: &GroupId,
        name: &FileName,
        path: &str,
    ) -> Result<Readable, PeerError> {
        let login = self.login_now()?;
        let Some(entry) = login.library.find(group, name) else {
            manifests::exists(self.tracker(), group, name).await?;
            return Err(ReadError::NotHere(group.clone(), name.clone()).into());
        };
        let Entry { file, folder: is_folder, size, .. } = entry;
        match (is_folder, path) {
            (false, "") => Ok(Readable { file, place: 0..size, name: name.to_string() }),
            (false, path) => Err(ReadError::NoSuchPath(name.clone(), path.to_owned()).into()),
            (true, "") => Err(ReadError::Folder(group.clone(), name.clone()).into()),
            (true, path) => {
                let folder = login.within(async { Ok(self.engine().known_folder(file).await?) }).await?;
                let place = place_in(&folder, path);
                let place = place.ok_or_else(|| ReadError::NoSuchPath(name.clone(), path.to_owned()))?;
                Ok(Readable { file, place, name: format!("{name}/{path}") })
            }
        }
    }

    /// Reads a file from `offset` on: at most `length` bytes.
    ///
    /// # Errors
    /// Fails when `offset` is after the end, or when the file is neither shared nor downloaded now.
    pub(crate) fn read(
        &self,
        readable: &Readable,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Reader, PeerError> {
        Ok(self.engine().read(readable.file, readable.part(offset, length)?)?)
    }
}

/// Where the file with this path lies in the folder's virtual file.
fn place_in(folder: &Arc<Folder>, path: &str) -> Option<Range<u64>> {
    let is_it = |entry: &proto::domain::folder::Entry| {
        entry.path.as_str() == path && matches!(entry.kind, EntryKind::File(_))
    };
    let entry = folder.entries().iter().position(is_it)?;
    Some(folder.contents().range(entry))
}

#[cfg(test)]
mod tests {
    use proto::reason::Reason;

    use super::*;

    #[test]
    fn a_part_is_what_lies_in_the_file() {
        let readable = Readable { file: testkit::content::file_id(1), place: 100..110, name: "f".into() };
        for (offset, length, expected) in [
            (0, None, 100..110),
            (0, Some(0), 100..100),
            (3, Some(4), 103..107),
            (3, Some(7), 103..110),
            (3, Some(u64::MAX), 103..110),
            (9, None, 109..110),
            (10, None, 110..110),
            (10, Some(5), 110..110),
        ] {
            assert_eq!(readable.part(offset, length).expect("in the file"), expected, "{offset} {length:?}");
        }
        for offset in [11, u64::MAX] {
            let error = readable.part(offset, Some(1)).expect_err("after the end");
            assert_eq!(error.reason(), Reason::OutOfRange);
        }
    }
}
