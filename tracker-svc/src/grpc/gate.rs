//! Admission to groups: looks up the caller's place and passes it to [`access::admit`].

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::domain::GroupId;

use super::rights::{Call, end_if_over, touch};
use crate::{
    domain::{
        Action, Caller, Membership, Origin, Refusal,
        access::{self, Admission, Proof, Rule},
        session::AccountId,
    },
    error::TrackerError,
    store::{Asked, FileRow, Store},
};

/// A call whose session was valid when it was last read. It proves nothing yet: [`Gate::admit`] does.
#[derive(Clone)]
pub struct Presumed {
    call: Arc<Call>,
    rule: Rule,
}

impl Presumed {
    pub(super) fn new(call: Arc<Call>, rule: Rule) -> Self {
        Self { call, rule }
    }
}

/// Admits callers to groups. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    store: Arc<dyn Store>,
}

impl Gate {
    /// A gate to the groups of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Proves the caller's standing in a group: `gate.enter::<Membership>(call, &group)`. The call ends when
    /// the proof is no longer valid.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], whether or not the group exists; [`Refusal::NotTheOwner`]; store errors.
    pub async fn enter<P: Proof>(&self, call: &Call, group: &GroupId) -> Result<P, TrackerError> {
        let place = self.store.place(call.account(), group).await?;
        let proof = access::admit(call, group, place)?;
        if let Some(place) = place {
            call.depends_on::<P>(group, place.group);
        }
        Ok(proof)
    }

    /// Proves the session of a presumed call and the caller's standing in a group, and returns the file that it asks for:
    /// one question to the store. The call ends when the proof is no longer valid.
    ///
    /// # Errors
    /// [`Refusal::NotLoggedIn`]; store errors. Refusals of [`access::admit`] are in the returned admission.
    pub async fn admit<P: Proof, T>(
        &self,
        request: &tonic::Request<T>,
        group: &GroupId,
        asked: Asked<'_>,
    ) -> Result<(Caller, Admission<P, FileRow>), TrackerError> {
        // The layer adds it for every method whose handler is to ask here.
        let presumed = request.extensions().get::<Presumed>().ok_or(Refusal::NotLoggedIn)?;
        let now = origin(request)?.at;
        let evidence = self.store.evidence(presumed.call.session(), group, asked).await?;
        if let Some(session) = &evidence.session {
            end_if_over(&*self.store, session, now).await;
            touch(&*self.store, session, now).await;
        }
        let place = evidence.place;
        let (caller, admission) = access::admit_by::<P, _>(presumed.rule, group, evidence, now)?;
        if let (Ok(_), Some(place)) = (&admission, place) {
            presumed.call.depends_on::<P>(group, place.group);
        }
        Ok((caller, admission))
    }

    /// Returns a proof that the caller is a member of a group now, or `None`. The call may go on without it.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn member(&self, caller: &Caller, group: &GroupId) -> Result<Option<Membership>, TrackerError> {
        let place = self.store.place(caller.account(), group).await?;
        Ok(access::admit(caller, group, place).ok())
    }
}

/// A call counts as a repeat for this long after it succeeded. Later, the state may have changed back, and the
/// answer must say so.
const REPEATS: Duration = Duration::from_secs(600);

/// Returns the outcome of a call that changes something, or OK if it was refused because the same call
/// succeeded a short time before.
///
/// A client that lost the response to a call may repeat the call with the same `x-request-id`. The audit row
/// of the first call shows that this user did the same thing under that id.
///
/// # Errors
/// Errors of `outcome` and of the store.
pub async fn unless_done(
    store: &dyn Store,
    actions: &[Action],
    object: &str,
    origin: &Origin,
    outcome: Result<(), TrackerError>,
) -> Result<(), TrackerError> {
    match outcome {
        Err(TrackerError::Refused(_)) if was_done(store, actions, object, origin).await? => Ok(()),
        outcome => outcome,
    }
}

/// Whether a call with the id of this one did one of these things a short time before.
///
/// # Errors
/// Errors of the store.
pub async fn was_done(
    store: &dyn Store,
    actions: &[Action],
    object: &str,
    origin: &Origin,
) -> Result<bool, TrackerError> {
    Ok(store.was_done(actions, object, origin, SystemTime::now() - REPEATS).await?)
}

/// The call that a request belongs to, and so its caller. The authentication layer adds it for every method
/// that requires a session.
///
/// # Errors
/// [`Refusal::NotLoggedIn`] if there is none, which the layer never allows.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Arc<Call>, TrackerError> {
    request.extensions().get::<Arc<Call>>().cloned().ok_or(TrackerError::Refused(Refusal::NotLoggedIn))
}

/// Whose calls a request counts among, whether or not the caller's session is proven yet. `None` for methods that need no
/// session.
pub(super) fn account(extensions: &http::Extensions) -> Option<AccountId> {
    let call = extensions.get::<Arc<Call>>();
    let call = call.or_else(|| extensions.get::<Presumed>().map(|presumed| &presumed.call));
    call.map(|call| call.account())
}

/// The origin of a request. The authentication layer adds it for every method.
///
/// # Errors
/// An internal fault if it is missing.
pub fn origin<T>(request: &tonic::Request<T>) -> Result<Origin, TrackerError> {
    let origin = request.extensions().get::<Origin>().cloned();
    origin.ok_or_else(|| TrackerError::Internal("a request without an origin".into()))
}
