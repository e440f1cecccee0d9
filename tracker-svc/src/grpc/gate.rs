//! The way into a group: looks the caller's place up and passes it through [`access::admit`].

use std::sync::Arc;

use proto::domain::GroupId;

use crate::{
    domain::{
        Caller, Origin, Refusal,
        access::{self, Proof},
    },
    error::TrackerError,
    store::Store,
};

/// Admits callers to groups. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    store: Arc<dyn Store>,
}

impl Gate {
    /// A gate to the groups of that store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Proves the caller's standing in a group: `gate.enter::<Membership>(caller, &group)`.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], whether or not the group exists; [`Refusal::NotTheOwner`]; store errors.
    pub async fn enter<P: Proof>(&self, caller: &Caller, group: &GroupId) -> Result<P, TrackerError> {
        let place = self.store.place(caller.account(), group).await?;
        Ok(access::admit(caller, group, place)?)
    }
}

/// The caller of a request: put there by the authentication layer for every method that asks for a session.
///
/// # Errors
/// [`Refusal::NotLoggedIn`] when there is none, which the layer never lets happen.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, TrackerError> {
    request.extensions().get::<Caller>().cloned().ok_or(TrackerError::Refused(Refusal::NotLoggedIn))
}

/// Where a request came from: put there by the authentication layer for every method.
///
/// # Errors
/// A fault of ours when it is not there.
pub fn origin<T>(request: &tonic::Request<T>) -> Result<Origin, TrackerError> {
    let origin = request.extensions().get::<Origin>().cloned();
    origin.ok_or_else(|| TrackerError::Internal("a request without an origin".into()))
}
