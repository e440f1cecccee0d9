//! Files, and manifests as rows of hashes.

use std::{sync::PoisonError, time::SystemTime};

use async_trait::async_trait;
use proto::domain::{FileHeader, FileId, FileName, PieceLayout, names::fold};

use super::{Sqlite, count, millis, stored, stored_bytes, taken, time};
use crate::{
    domain::{
        Action, Membership, Origin, Refusal, access,
        quota::{BYTES_A_PIECE, Quota},
    },
    events::Change,
    store::{FileRow, Files, HashRun, ManifestId, Published, Result, StoreError},
};

/// Rows of hashes deleted in one transaction: about 1.7 MB, so that no write waits long behind a sweep.
const RUNS_A_SWEEP: i64 = 8;

#[derive(sqlx::FromRow)]
struct Columns {
    id: Vec<u8>,
    name: String,
    length: i64,
    sha1: Vec<u8>,
    blake3: Vec<u8>,
    hashes: Vec<u8>,
    manifest: i64,
    publisher: String,
    published_at: i64,
}

macro_rules! select_file {
    ($rest:literal) => {
        concat!(
            "SELECT f.id, f.name, f.length, f.sha1, f.blake3, f.hashes, f.manifest, a.username AS publisher,",
            " f.published_at FROM files f JOIN accounts a ON a.id = f.publisher WHERE f.group_id = ? AND ",
            $rest
        )
    };
}

impl Columns {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
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
        })
    }
}

impl TryFrom<Columns> for FileRow {
    type Error = StoreError;

    fn try_from(row: Columns) -> Result<Self> {
        let layout = PieceLayout::new(count(row.length))
            .ok_or_else(|| StoreError::Fault(format!("a length of {} is stored", row.length)))?;
        Ok(Self {
            id: stored_bytes(&row.id)?,
            header: FileHeader {
                name: stored(&row.name)?,
                layout,
                sha1: stored_bytes(&row.sha1)?,
                blake3: stored_bytes(&row.blake3)?,
            },
            hashes: stored_bytes(&row.hashes)?,
            manifest: ManifestId(row.manifest),
            publisher: stored(&row.publisher)?,
            since: time(row.published_at),
        })
    }
}

impl Sqlite {
    /// How many manifests there are, bound to a file or not yet swept away.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn manifests_stored(&self) -> Result<u64> {
        let (stored,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM manifests").fetch_one(&self.readers).await?;
        Ok(count(stored))
    }

    /// Gives up what was abandoned.
    async fn give_up_abandoned(&self) -> Result<()> {
        let next = || self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).pop();
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
        // All zeroes is no id; it comes up once in 2^128.
        if let Ok(id) = FileId::try_from(&rand::random::<[u8; 16]>()[..]) {
            return id;
        }
    }
}

#[async_trait]
impl Files for Sqlite {
    async fn stage_manifest(&self, member: &Membership, pieces: u32, now: SystemTime) -> Result<ManifestId> {
        let bytes = u64::from(pieces) * BYTES_A_PIECE;
        let mut write = self.begin().await?;
        let (used,): (i64,) = sqlx::query_as("SELECT manifest_bytes FROM accounts WHERE id = ?")
            .bind(member.account().0)
            .fetch_one(&mut *write.tx)
            .await?;
        Quota::ManifestBytes.admit(count(used), bytes)?;
        let sql = "INSERT INTO manifests (account, bytes, state, staged_at) VALUES (?, ?, 0, ?)";
        let inserted = sqlx::query(sql)
            .bind(member.account().0)
            .bind(bytes.cast_signed())
            .bind(millis(now))
            .execute(&mut *write.tx)
            .await?;
        let manifest = ManifestId(inserted.last_insert_rowid());
        write.commit().await?;
        Ok(manifest)
    }

    async fn stage_run(&self, manifest: ManifestId, run: &HashRun) -> Result<()> {
        let mut write = self.begin().await?;
        let sql = "INSERT INTO runs (manifest, first, sha1, blake3) VALUES (?, ?, ?, ?)";
        sqlx::query(sql)
            .bind(manifest.0)
            .bind(run.first)
            .bind(&run.sha1[..])
            .bind(&run.blake3[..])
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    async fn give_up_manifest(&self, manifest: ManifestId) -> Result<()> {
        let sql = "UPDATE manifests SET state = 2 WHERE id = ? AND state = 0";
        sqlx::query(sql).bind(manifest.0).execute(&self.writer).await?;
        self.sweep.notify_one();
        Ok(())
    }

    fn abandon_manifest(&self, manifest: ManifestId) {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(manifest);
        self.sweep.notify_one();
    }

    async fn publish(
        &self,
        member: &Membership,
        header: &FileHeader,
        hashes: [u8; 32],
        manifest: ManifestId,
        origin: &Origin,
    ) -> Result<Published> {
        let mut write = self.begin().await?;
        write.still_member(member).await?;
        let folded = fold(header.name.as_str());
        let row: Option<Columns> = sqlx::query_as(select_file!("f.folded = ?"))
            .bind(member.key().0)
            .bind(&folded)
            .fetch_optional(&mut *write.tx)
            .await?;
        if let Some(row) = row {
            let there = FileRow::try_from(row)?;
            if there.header != *header || there.hashes != hashes {
                return Err(Refusal::FileTaken.into());
            }
            return Ok(Published { file: there.id, already: true });
        }
        let (files,): (i64,) = sqlx::query_as("SELECT files FROM groups WHERE id = ?")
            .bind(member.key().0)
            .fetch_one(&mut *write.tx)
            .await?;
        Quota::Files.admit(count(files), 1)?;
        let bound = sqlx::query("UPDATE manifests SET state = 1 WHERE id = ? AND state = 0")
            .bind(manifest.0)
            .execute(&mut *write.tx)
            .await?;
        if bound.rows_affected() != 1 {
            return Err(StoreError::Fault("the staged manifest is gone".into()));
        }
        let file = new_file_id();
        let sql = "INSERT INTO files (id, group_id, name, folded, length, sha1, blake3, hashes, manifest, publisher,
                   published_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
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
            .execute(&mut *write.tx)
            .await;
        taken(inserted, Refusal::FileTaken)?;
        write.audit(Action::PublishFile, &format!("{}/{}", member.group(), header.name), origin).await?;
        write.commit().await?;
        Ok(Published { file, already: false })
    }

    async fn file_by_id(&self, member: &Membership, file: FileId) -> Result<Option<FileRow>> {
        let key = (member.key().0, &file.as_bytes()[..]);
        let row = self.lookups.one(select_file!("f.id = ?"), key, Columns::read)?;
        row.map(FileRow::try_from).transpose()
    }

    async fn file_id(&self, member: &Membership, name: &FileName) -> Result<Option<FileId>> {
        let sql = "SELECT id FROM files WHERE group_id = ? AND name = ?";
        let id = self.lookups.one(sql, (member.key().0, name.as_str()), |row| row.get::<_, [u8; 16]>(0))?;
        id.map(|id| stored_bytes(&id)).transpose()
    }

    async fn file_by_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>> {
        let key = (member.key().0, name.as_str());
        let row = self.lookups.one(select_file!("f.name = ?"), key, Columns::read)?;
        row.map(FileRow::try_from).transpose()
    }

    async fn file_by_folded_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>> {
        let row: Option<Columns> = sqlx::query_as(select_file!("f.folded = ?"))
            .bind(member.key().0)
            .bind(fold(name.as_str()))
            .fetch_optional(&self.readers)
            .await?;
        row.map(FileRow::try_from).transpose()
    }

    async fn files(&self, member: &Membership, after: Option<&FileName>, limit: u32) -> Result<Vec<FileRow>> {
        let rows: Vec<Columns> = sqlx::query_as(select_file!("f.name > ? ORDER BY f.name LIMIT ?"))
            .bind(member.key().0)
            .bind(after.map_or("", FileName::as_str))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter().map(FileRow::try_from).collect()
    }

    async fn manifest_run(&self, manifest: ManifestId, first: u32) -> Result<Option<HashRun>> {
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT sha1, blake3 FROM runs WHERE manifest = ? AND first = ?")
                .bind(manifest.0)
                .bind(first)
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(sha1, blake3)| HashRun { first, sha1, blake3 }))
    }

    async fn unpublish(&self, member: &Membership, name: &FileName, origin: &Origin) -> Result<()> {
        let mut write = self.begin().await?;
        write.still_member(member).await?;
        let row: Option<Columns> = sqlx::query_as(select_file!("f.name = ?"))
            .bind(member.key().0)
            .bind(name.as_str())
            .fetch_optional(&mut *write.tx)
            .await?;
        let there = FileRow::try_from(row.ok_or(Refusal::FileNotFound)?)?;
        access::may_unpublish(member, &there.publisher)?;
        sqlx::query("DELETE FROM files WHERE id = ?")
            .bind(&there.id.as_bytes()[..])
            .execute(&mut *write.tx)
            .await?;
        let gone = Change::FileGone { group: member.group().clone(), file: there.id };
        write.change(&gone, origin.at).await?;
        write.audit(Action::UnpublishFile, &format!("{}/{name}", member.group()), origin).await?;
        write.commit().await?;
        self.sweep.notify_one();
        Ok(())
    }

    async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }

    async fn sweep(&self) -> Result<()> {
        loop {
            // Each time: the quota of one that was given up does not wait until a long one before it is swept away.
            self.give_up_abandoned().await?;
            let next: Option<(i64,)> = sqlx::query_as("SELECT id FROM manifests WHERE state = 2 LIMIT 1")
                .fetch_optional(&self.readers)
                .await?;
            let Some((manifest,)) = next else { return Ok(()) };
            let sql = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE manifest = ? LIMIT ?)";
            let swept = sqlx::query(sql).bind(manifest).bind(RUNS_A_SWEEP).execute(&self.writer).await?;
            if swept.rows_affected() == 0 {
                sqlx::query("DELETE FROM manifests WHERE id = ?")
                    .bind(manifest)
                    .execute(&self.writer)
                    .await?;
            }
        }
    }
}
