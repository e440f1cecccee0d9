//! Files, and manifests as rows of hashes. For each database: see [`super::super::sql`].

use std::time::SystemTime;

use async_trait::async_trait;
use proto::domain::{FileHeader, FileId, FileName, PieceLayout, folder::FolderShape, names::fold};

use super::{
    Database, Write, count,
    lookup::{Row, RowResult},
    millis, stored, stored_bytes, taken, time,
};
use crate::{
    domain::{
        Action, Change, Membership, Origin, Refusal, access,
        audit::about_file,
        operator::Listed,
        quota::{BYTES_A_PIECE, Quota},
    },
    store::{FileRow, Files, HashRun, IfTaken, ManifestId, Publication, Published, Result, StoreError},
};

/// Rows of hashes that one transaction deletes: about 1.7 MB, so that no write waits long for a sweep.
const RUNS_A_SWEEP: i64 = 8;

#[derive(sqlx::FromRow)]
pub(super) struct Columns {
    id: Vec<u8>,
    name: String,
    length: i64,
    sha1: Vec<u8>,
    blake3: Vec<u8>,
    hashes: Vec<u8>,
    manifest: i64,
    publisher: String,
    published_at: i64,
    folder_files: Option<i64>,
    index_length: Option<i64>,
}

/// The columns of a file `f` whose publisher is the account `p`, for [`Columns`].
macro_rules! file_columns {
    () => {
        "f.id, f.name, f.length, f.sha1, f.blake3, f.hashes, f.manifest, p.username AS publisher, f.published_at, f.folder_files, f.index_length"
    };
}
pub(super) use file_columns;

macro_rules! select_file {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            file_columns!(),
            " FROM files f JOIN accounts p ON p.id = f.publisher WHERE f.group_id = $1 AND ",
            $rest
        )
    };
}

impl Columns {
    pub(super) fn read(row: &Row<'_>) -> RowResult<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            length: row.get("length")?,
            sha1: row.get("sha1")?,
            blake3: row.get("blake3")?,
            hashes: row.get("hashes")?,
            manifest: row.get("manifest")?,
            publisher: row.get("publisher")?,
            published_at: row.get("published_at")?,
            folder_files: row.get("folder_files")?,
            index_length: row.get("index_length")?,
        })
    }
}

impl TryFrom<Columns> for FileRow {
    type Error = StoreError;

    fn try_from(row: Columns) -> Result<Self> {
        let layout = PieceLayout::new(count(row.length))
            .ok_or_else(|| StoreError::Fault(format!("the stored length {} is not valid", row.length)))?;
        let folder = match (row.folder_files, row.index_length) {
            (Some(files), Some(index_length)) => Some(FolderShape {
                files: u32::try_from(files).map_err(|_| {
                    StoreError::Fault(format!(
                        "the stored number of files of a folder, {files}, is not valid"
                    ))
                })?,
                index_length: count(index_length),
            }),
            _ => None,
        };
        Ok(Self {
            id: stored_bytes(&row.id)?,
            header: FileHeader {
                name: stored(&row.name)?,
                layout,
                sha1: stored_bytes(&row.sha1)?,
                blake3: stored_bytes(&row.blake3)?,
                folder,
            },
            hashes: stored_bytes(&row.hashes)?,
            manifest: ManifestId(row.manifest),
            publisher: stored(&row.publisher)?,
            since: time(row.published_at),
        })
    }
}

impl Database {
    /// The number of manifests, bound to a file or not yet deleted.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn manifests_stored(&self) -> Result<u64> {
        let (stored,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM manifests").fetch_one(self.reads()).await?;
        Ok(count(stored))
    }

    /// Gives up the abandoned manifests.
    async fn give_up_abandoned(&self) -> Result<()> {
        let next = || self.abandoned.lock().pop();
        while let Some(manifest) = next() {
            if let Err(error) = self.give_up_manifest(manifest).await {
                self.abandon_manifest(manifest);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn new_file_id() -> FileId {
    loop {
        // The id of all zeros is invalid. It occurs once in 2^128 draws.
        if let Ok(id) = FileId::try_from(&rand::random::<[u8; 16]>()[..]) {
            return id;
        }
    }
}

impl Write<'_> {
    async fn listed(&mut self, sql: &'static str, id: i64) -> Result<Listed> {
        let (bytes, files): (i64, i64) = sqlx::query_as(sql).bind(id).fetch_one(self.tx()).await?;
        Ok(Listed { bytes: count(bytes), files: count(files) })
    }

    /// Deletes a file of the member's group if the member may, and tells the running streams. Its manifest is to be
    /// swept away.
    async fn unlist(&mut self, member: &Membership, file: &FileRow, origin: &Origin) -> Result<()> {
        access::may_unlist(member, &file.publisher)?;
        if *member.user() != file.publisher {
            // A long publication may have outlived the ownership.
            self.still_owner(member).await?;
        }
        sqlx::query("DELETE FROM files WHERE id = $1")
            .bind(&file.id.as_bytes()[..])
            .execute(self.tx())
            .await?;
        let gone = Change::FileGone { group: member.group().clone(), file: file.id };
        self.change(&gone, origin.at).await
    }
}

#[async_trait]
impl Files for Database {
    async fn stage_manifest(&self, member: &Membership, pieces: u32, now: SystemTime) -> Result<ManifestId> {
        let bytes = u64::from(pieces) * BYTES_A_PIECE;
        let mut write = self.begin().await?;
        let (used,): (i64,) = sqlx::query_as("SELECT manifest_bytes FROM accounts WHERE id = $1")
            .bind(member.account().0)
            .fetch_one(write.tx())
            .await?;
        Quota::ManifestBytes.admit(count(used), bytes)?;
        let sql =
            "INSERT INTO manifests (account, bytes, state, staged_at) VALUES ($1, $2, 0, $3) RETURNING id";
        let (manifest,): (i64,) = sqlx::query_as(sql)
            .bind(member.account().0)
            .bind(bytes.cast_signed())
            .bind(millis(now))
            .fetch_one(write.tx())
            .await?;
        write.commit().await?;
        Ok(ManifestId(manifest))
    }

    async fn stage_run(&self, manifest: ManifestId, run: &HashRun) -> Result<()> {
        let mut write = self.begin_append().await?;
        let sql = "INSERT INTO runs (manifest, first, sha1, blake3) VALUES ($1, $2, $3, $4)";
        sqlx::query(sql)
            .bind(manifest.0)
            .bind(i64::from(run.first))
            .bind(&run.sha1[..])
            .bind(&run.blake3[..])
            .execute(write.tx())
            .await?;
        write.commit().await
    }

    async fn give_up_manifest(&self, manifest: ManifestId) -> Result<()> {
        let sql = "UPDATE manifests SET state = 2 WHERE id = $1 AND state = 0";
        sqlx::query(sql).bind(manifest.0).execute(self.writes()).await?;
        self.sweep.notify_one();
        Ok(())
    }

    fn abandon_manifest(&self, manifest: ManifestId) {
        self.abandoned.lock().push(manifest);
        self.sweep.notify_one();
    }

    async fn publish(
        &self,
        member: &Membership,
        publication: Publication<'_>,
        origin: &Origin,
    ) -> Result<Published> {
        let Publication { header, hashes, manifest, if_taken, quotas } = publication;
        let mut write = self.begin().await?;
        write.still_publisher(member).await?;
        let folded = fold(header.name.as_str());
        let row: Option<Columns> = sqlx::query_as(select_file!("f.folded = $2"))
            .bind(member.key().0)
            .bind(&folded)
            .fetch_optional(write.tx())
            .await?;
        let there = row.map(FileRow::try_from).transpose()?;
        let replaced = there.is_some();
        if let Some(there) = there {
            if there.header == *header && there.hashes == hashes {
                return Ok(Published { file: there.id, already: true, replaced: false });
            }
            if if_taken == IfTaken::Refuse || there.header.name != header.name {
                return Err(Refusal::FileTaken.into());
            }
            write.unlist(member, &there, origin).await?;
        }
        let of_group = write.listed("SELECT bytes, files FROM groups WHERE id = $1", member.key().0).await?;
        let of_user =
            write.listed("SELECT bytes, files FROM accounts WHERE id = $1", member.account().0).await?;
        Quota::Files.admit(of_group.files, 1)?;
        quotas.admit(header, (member.group(), of_group), (member.user(), of_user))?;
        let bound = sqlx::query("UPDATE manifests SET state = 1 WHERE id = $1 AND state = 0")
            .bind(manifest.0)
            .execute(write.tx())
            .await?;
        if bound.rows_affected() != 1 {
            return Err(StoreError::Fault("the staged manifest was deleted".into()));
        }
        let file = new_file_id();
        let sql = "INSERT INTO files (id, group_id, name, folded, length, sha1, blake3, hashes, manifest, publisher,
                   published_at, folder_files, index_length) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let inserted = sqlx::query(sql)
            .bind(&file.as_bytes()[..])
            .bind(member.key().0)
            .bind(header.name.as_str())
            .bind(folded)
            .bind(header.layout.length().cast_signed())
            .bind(&header.sha1.as_bytes()[..])
            .bind(&header.blake3.as_bytes()[..])
            .bind(&hashes[..])
            .bind(manifest.0)
            .bind(member.account().0)
            .bind(millis(origin.at))
            .bind(header.folder.map(|folder| i64::from(folder.files)))
            .bind(header.folder.map(|folder| folder.index_length.cast_signed()))
            .execute(write.tx())
            .await;
        taken(inserted, Refusal::FileTaken)?;
        let action = if replaced { Action::ReplaceFile } else { Action::PublishFile };
        write.audit(action, &about_file(member.group(), &header.name), origin).await?;
        let listed = Change::FilePublished { group: member.group().clone(), file };
        write.change(&listed, origin.at).await?;
        write.commit().await?;
        if replaced {
            self.sweep.notify_one();
        }
        Ok(Published { file, already: false, replaced })
    }

    async fn file_by_id(&self, member: &Membership, file: FileId) -> Result<Option<FileRow>> {
        let key = (member.key().0, &file.as_bytes()[..]);
        let row = self.one(select_file!("f.id = $2"), key, Columns::read).await?;
        row.map(FileRow::try_from).transpose()
    }

    async fn file_by_folded_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>> {
        let row: Option<Columns> = sqlx::query_as(select_file!("f.folded = $2"))
            .bind(member.key().0)
            .bind(fold(name.as_str()))
            .fetch_optional(self.reads())
            .await?;
        row.map(FileRow::try_from).transpose()
    }

    async fn files(&self, member: &Membership, after: Option<&FileName>, limit: u32) -> Result<Vec<FileRow>> {
        let rows: Vec<Columns> = sqlx::query_as(select_file!("f.name > $2 ORDER BY f.name LIMIT $3"))
            .bind(member.key().0)
            .bind(after.map_or("", FileName::as_str))
            .bind(i64::from(limit))
            .fetch_all(self.reads())
            .await?;
        rows.into_iter().map(FileRow::try_from).collect()
    }

    async fn manifest_run(&self, manifest: ManifestId, first: u32) -> Result<Option<HashRun>> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT sha1, blake3 FROM runs WHERE manifest = $1 AND first = $2")
                .bind(manifest.0)
                .bind(i64::from(first))
                .fetch_optional(self.reads())
                .await?;
        Ok(row.map(|(sha1, blake3)| HashRun { first, sha1, blake3 }))
    }

    async fn unpublish(&self, member: &Membership, name: &FileName, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_publisher(member).await?;
        let row: Option<Columns> = sqlx::query_as(select_file!("f.name = $2"))
            .bind(member.key().0)
            .bind(name.as_str())
            .fetch_optional(write.tx())
            .await?;
        let there = FileRow::try_from(row.ok_or(Refusal::FileNotFound)?)?;
        write.unlist(member, &there, origin).await?;
        write.audit(Action::UnpublishFile, &about_file(member.group(), name), origin).await?;
        write.commit().await?;
        self.sweep.notify_one();
        Ok(())
    }

    async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }

    async fn sweep(&self) -> Result<()> {
        loop {
            // Repeated in each iteration, so that the quota of an abandoned manifest is freed before a long
            // sweep ends.
            self.give_up_abandoned().await?;
            let next: Option<(i64,)> = sqlx::query_as("SELECT id FROM manifests WHERE state = 2 LIMIT 1")
                .fetch_optional(self.reads())
                .await?;
            let Some((manifest,)) = next else { return Ok(()) };
            let sql = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE manifest = $1 LIMIT $2)";
            let swept = sqlx::query(sql).bind(manifest).bind(RUNS_A_SWEEP).execute(self.writes()).await?;
            if swept.rows_affected() == 0 {
                sqlx::query("DELETE FROM manifests WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM runs WHERE manifest = $1)")
                    .bind(manifest)
                    .execute(self.writes())
                    .await?;
            }
        }
    }
}
