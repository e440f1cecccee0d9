//! Where a PostgreSQL database is, and how to get in.

use std::{fmt, io, net::IpAddr, path::Path, str::FromStr as _};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

/// The longest password file that is read, in bytes.
const MAX_PASSWORD: usize = 4_096;

/// The reason why an address of a database is refused.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// It is not an address of PostgreSQL.
    #[error(
        "the address is not valid: {0}; write it as postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full"
    )]
    Malformed(sqlx::Error),
    /// It contains a password, which other users of this machine could read.
    #[error(
        "the address must not contain a password, which others on this machine could read; put it into a file and name that by --database-password-file, or into ~/.pgpass"
    )]
    Password,
    /// The password's file cannot be read.
    #[error("{0}: {1}")]
    File(String, io::Error),
}

/// The address of a database, and the password.
#[derive(Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
}

impl PostgresOptions {
    /// Reads an address like `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`. What it leaves out
    /// comes from the environment variables of libpq (PGHOST, PGUSER and so on). Without a password file, the
    /// password comes from the pass file of libpq.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn new(address: &str, password_file: Option<&Path>) -> Result<Self, OptionsError> {
        let (scheme, rest) = address.split_once("://").unwrap_or_default();
        // The driver takes any scheme.
        if !["postgres", "postgresql"].contains(&scheme) {
            let error = sqlx::Error::Configuration("it does not begin with postgres://".into());
            return Err(OptionsError::Malformed(error));
        }
        // A password stands between a colon and the `@`.
        let authority = rest.split(['/', '?']).next().unwrap_or("");
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || address.contains("password=") {
            return Err(OptionsError::Password);
        }
        let mut connect = PgConnectOptions::from_str(address).map_err(OptionsError::Malformed)?;
        if let Some(path) = password_file {
            let failed = |error| OptionsError::File(path.display().to_string(), error);
            let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
            if text.len() > MAX_PASSWORD {
                return Err(failed(io::Error::other("the file is too long for a password")));
            }
            connect = connect.password(text.trim_end_matches(['\r', '\n']));
        }
        Ok(Self { connect })
    }

    pub(in crate::store) fn connect(&self) -> &PgConnectOptions {
        &self.connect
    }

    /// Whether others on the network could read what goes to the database.
    pub fn is_readable_on_the_way(&self) -> bool {
        let host = self.connect.get_host();
        let is_here = self.connect.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_encrypted = matches!(
            self.connect.get_ssl_mode(),
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
        );
        !is_here && !is_encrypted
    }
}

/// What to do about an error of connecting, if it is known. By its text, because the driver does not show its type.
pub(super) fn advice(error: &sqlx::Error) -> &'static str {
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    if says("not valid for name") || says("NotValidForName") {
        "; write the server's name into the address as it is in the server's certificate"
    } else if says("invalid peer certificate") {
        "; name a file with the CA that signed the server's certificate: &sslrootcert=FILE in the address"
    } else if says("does not support TLS") {
        "; turn TLS on at the server, with `ssl = on`"
    } else if says("no encryption") {
        "; the server wants TLS: add sslmode=verify-full to the address"
    } else {
        ""
    }
}

impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.connect.get_database().unwrap_or(self.connect.get_username());
        match self.connect.get_socket() {
            Some(socket) => write!(f, "{database} at {}", socket.display()),
            None => write!(f, "{database} at {}:{}", self.connect.get_host(), self.connect.get_port()),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_part_of_the_address() {
        for address in ["postgres://ann:secret@db/net", "postgres://db/net?password=secret"] {
            assert!(matches!(PostgresOptions::new(address, None), Err(OptionsError::Password)), "{address}");
        }
        let options = PostgresOptions::new("postgres://ann@db:5433/net", None).expect("an address");
        assert_eq!(options.to_string(), "net at db:5433");
        assert!(PostgresOptions::new("mysql://db/net", None).is_err());
    }

    #[test]
    fn only_tls_protects_the_way_to_another_machine() {
        for (address, readable) in [
            ("postgres://ann@db/net", true),
            ("postgres://ann@db/net?sslmode=verify-full", false),
            ("postgres://ann@127.0.0.1/net", false),
            ("postgres:///net?host=/run/postgresql", false),
        ] {
            let options = PostgresOptions::new(address, None).expect("an address");
            assert_eq!(options.is_readable_on_the_way(), readable, "{address}");
        }
    }
}
