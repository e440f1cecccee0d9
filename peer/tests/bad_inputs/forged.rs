//! Tickets that no real signer would sign.

use ed25519_compact::{KeyPair, Seed};
use pasetors::{
    Public,
    keys::AsymmetricSecretKey,
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use testkit::world::TICKET_SEED;

/// A ticket that can be changed freely and signed again with the world's own key, which the real signer would
/// never do.
pub(crate) struct Forged {
    pub(crate) payload: serde_json::Map<String, serde_json::Value>,
    pub(crate) footer: String,
    pub(crate) assertion: &'static str,
}

impl From<String> for Forged {
    /// Takes the ticket unchanged. Signed again, it is as valid as before.
    fn from(ticket: String) -> Self {
        let token = UntrustedToken::<Public, V4>::try_from(&ticket).unwrap();
        Self {
            payload: serde_json::from_slice(token.untrusted_payload()).unwrap(),
            footer: String::from_utf8(token.untrusted_footer().to_vec()).unwrap(),
            assertion: "minitorrent/chunk/v1",
        }
    }
}

impl Forged {
    pub(crate) fn claim(mut self, name: &str, value: &str) -> Self {
        self.payload.insert(name.into(), value.into());
        self
    }

    pub(crate) fn signed(&self) -> String {
        let pair = KeyPair::from_seed(Seed::new(TICKET_SEED));
        let key = AsymmetricSecretKey::<V4>::from(pair.sk.as_ref()).unwrap();
        let payload = serde_json::to_vec(&self.payload).unwrap();
        let (footer, assertion) = (self.footer.as_bytes(), self.assertion.as_bytes());
        PublicToken::sign(&key, &payload, Some(footer), Some(assertion)).unwrap()
    }
}
