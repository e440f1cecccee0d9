//! `#[serde(with = "text")]`: serializes values as their text form; `text::stored` does so for names.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Writes the value as its text.
pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads the value from its text, and checks it.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// For names: read as [`Name::stored`](proto::domain::Name::stored).
pub(crate) mod stored {
    use proto::domain::Name;

    pub(crate) use super::serialize;
    use serde::{Deserialize as _, Deserializer, de::Error as _};

    /// Reads a name that was stored, perhaps by an earlier version.
    pub(crate) fn deserialize<'de, T: Name, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::stored(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
