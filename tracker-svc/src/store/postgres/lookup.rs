//! Lookups of one row by its key, in the shape that [`super::super::sqlite`] has too.

use sqlx::{
    Arguments as _, ColumnIndex, Decode, Encode, Row as _, Type,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};

/// The result of reading a column.
pub(super) type RowResult<T> = sqlx::Result<T>;

/// A row that was found.
pub(super) struct Row<'r>(pub(super) &'r PgRow);

impl Row<'_> {
    /// Reads a column.
    pub(super) fn get<I: ColumnIndex<PgRow>, T>(&self, column: I) -> RowResult<T>
    where
        T: for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
    {
        self.0.try_get(column)
    }
}

/// The parameters of a lookup, in order.
pub(super) trait Key {
    /// Encodes them.
    fn arguments(self) -> Result<PgArguments, BoxDynError>;
}

/// A value of a parameter.
pub(super) trait Value: for<'q> Encode<'q, sqlx::Postgres> + Type<sqlx::Postgres> {}

impl<T: for<'q> Encode<'q, sqlx::Postgres> + Type<sqlx::Postgres>> Value for T {}

impl<A: Value> Key for (A,) {
    fn arguments(self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(self.0)?;
        Ok(arguments)
    }
}

impl<A: Value, B: Value> Key for (A, B) {
    fn arguments(self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = (self.0,).arguments()?;
        arguments.add(self.1)?;
        Ok(arguments)
    }
}

impl<A: Value, B: Value, C: Value> Key for (A, B, C) {
    fn arguments(self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = (self.0, self.1).arguments()?;
        arguments.add(self.2)?;
        Ok(arguments)
    }
}
