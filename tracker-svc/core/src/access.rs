//! Access control: one table of all methods, and the proofs that its group-level requirements were checked.
//!
//! A method that is not in [`TABLE`] is not served. A token calls only what the table says. The authentication layer
//! enforces the first two levels, [`Requirement::Anyone`] and [`Requirement::Session`], before a handler runs. The other
//! levels need the caller's place in the group that the request names. Handlers pass it to [`admit`], and only [`admit`]
//! can make an [`Applicant`], a [`Membership`], a [`Management`] or an [`Ownership`]. The store's group methods accept only
//! those types. So a handler that forgets the check does not compile. If a handler asks for less than the table,
//! [`admit`] enforces the table.

mod table;

use std::{sync::Arc, time::SystemTime};

use domain::{GroupId, Username};

pub use self::table::{Requirement, Rule, TABLE, requirement, rule};
use super::{
    Refusal,
    session::{AccountId, Session, SessionHash},
    token::{Allow, TokenScope},
};

/// A user with a valid session that calls a method. The table allows the call.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Username,
    account: AccountId,
    session: SessionHash,
    ends: SystemTime,
    requirement: Requirement,
    token: Option<Arc<TokenScope>>,
}

impl Caller {
    /// The user of the session.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// The user's key in the store.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The session.
    pub fn session(&self) -> SessionHash {
        self.session
    }

    /// The latest end of the session.
    pub fn session_ends(&self) -> SystemTime {
        self.ends
    }

    /// What the caller's token may do, if it has one instead of a session.
    pub fn token(&self) -> Option<&Arc<TokenScope>> {
        self.token.as_ref()
    }

    /// Whether the caller may act in the group at all, as far as its token goes.
    pub fn covers(&self, group: &GroupId) -> bool {
        self.token.as_ref().is_none_or(|token| token.covers(group))
    }
}

/// Lets a session, or a token, call a method with this rule.
///
/// # Errors
/// [`Refusal::NotLoggedIn`] if the session has ended or its account is disabled, [`Refusal::OutOfScope`] if the token
/// does not allow it.
pub fn authenticate(rule: impl Into<Rule>, session: Session, now: SystemTime) -> Result<Caller, Refusal> {
    let Rule { requirement, machines } = rule.into();
    if !session.is_alive(now) {
        return Err(Refusal::NotLoggedIn);
    }
    let ends = session.ends();
    let token = session.machine.map(|machine| machine.scope);
    if let Some(token) = &token
        && machines.is_none_or(|least| token.allow < least)
    {
        return Err(Refusal::OutOfScope);
    }
    Ok(Caller {
        user: session.user,
        account: session.account,
        session: session.hash,
        ends,
        requirement,
        token,
    })
}

/// A user's relation to a group. Each level includes the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not a member, and no open request.
    None,
    /// Has an open request to join.
    Requested,
    /// A member that downloads and serves, and publishes nothing.
    Reader,
    /// A member.
    Member,
    /// A member that also accepts, removes and invites others.
    Manager,
    /// The owner.
    Owner,
}

/// What a member who does not own the group may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// [`Standing::Reader`].
    Reader,
    /// [`Standing::Member`].
    Member,
    /// [`Standing::Manager`].
    Manager,
}

/// A group's key in the store. A new group of the same name has another key, so a proof never outlives its
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub i64);

/// A user's place in an existing group, as the store returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: GroupKey,
    /// The group's epoch. Tickets of a lower epoch are void.
    pub epoch: u64,
    /// The user's relation to the group.
    pub standing: Standing,
}

/// Proof that a user has at least an open request to join a group.
#[derive(Clone, Debug)]
pub struct Applicant {
    group: GroupId,
    user: Username,
    account: AccountId,
    place: Place,
}

/// Proof that a user is a member of a group.
#[derive(Clone, Debug)]
pub struct Membership(Applicant);

/// Proof that a user may manage the members of a group.
#[derive(Clone, Debug)]
pub struct Management(Membership);

/// Proof that a user is the owner of a group.
#[derive(Clone, Debug)]
pub struct Ownership(Management);

impl Applicant {
    /// The group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The group's key in the store.
    pub fn key(&self) -> GroupKey {
        self.place.group
    }

    /// The user.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// The user's key in the store.
    pub fn account(&self) -> AccountId {
        self.account
    }
}

impl Membership {
    /// The group's epoch when membership was checked.
    pub fn epoch(&self) -> u64 {
        self.0.place.epoch
    }

    /// Whether the member owns the group.
    pub fn is_owner(&self) -> bool {
        self.0.place.standing >= Standing::Owner
    }
}

impl std::ops::Deref for Membership {
    type Target = Applicant;

    fn deref(&self) -> &Applicant {
        &self.0
    }
}

impl std::ops::Deref for Management {
    type Target = Membership;

    fn deref(&self) -> &Membership {
        &self.0
    }
}

impl std::ops::Deref for Ownership {
    type Target = Management;

    fn deref(&self) -> &Management {
        &self.0
    }
}

/// A proof that [`admit`] can make.
pub trait Proof: Sized {
    /// The minimum standing that it proves.
    const NEEDS: Standing;
    #[doc(hidden)]
    fn prove(applicant: Applicant, _: Seal) -> Self;
}

/// Keeps [`Proof::prove`] within this module.
#[derive(Debug)]
pub struct Seal(());

impl Proof for Applicant {
    const NEEDS: Standing = Standing::Requested;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        applicant
    }
}

impl Proof for Membership {
    const NEEDS: Standing = Standing::Reader;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        Self(applicant)
    }
}

impl Proof for Management {
    const NEEDS: Standing = Standing::Manager;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        Self(Membership(applicant))
    }
}

impl Proof for Ownership {
    const NEEDS: Standing = Standing::Owner;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        Self(Management(Membership(applicant)))
    }
}

/// Admits a caller to a group. The stricter of the table's and the proof's requirement applies.
///
/// If the group does not exist (`place` is `None`), or the caller's token is not for it, the refusal is the same as for
/// a caller that is not a member.
///
/// # Errors
/// [`Refusal::NotAMember`], or if the member's role does not allow it: [`Refusal::ReadsOnly`],
/// [`Refusal::NotAManager`] or [`Refusal::NotTheOwner`].
pub fn admit<P: Proof>(caller: &Caller, group: &GroupId, place: Option<Place>) -> Result<P, Refusal> {
    let by_table = match caller.requirement {
        Requirement::Anyone | Requirement::Session => Standing::None,
        Requirement::Applicant => Standing::Requested,
        Requirement::Reader => Standing::Reader,
        Requirement::Member => Standing::Member,
        Requirement::Manager => Standing::Manager,
        Requirement::Owner => Standing::Owner,
    };
    let mut place = place.filter(|_| caller.covers(group)).ok_or(Refusal::NotAMember)?;
    // A token that may not manage is a member's at most.
    if caller.token.as_ref().is_some_and(|token| token.allow < Allow::Manage) {
        place.standing = place.standing.min(Standing::Member);
    }
    let needed = by_table.max(P::NEEDS);
    if place.standing < needed {
        return Err(match needed {
            _ if place.standing < Standing::Reader => Refusal::NotAMember,
            Standing::Owner => Refusal::NotTheOwner,
            Standing::Manager => Refusal::NotAManager,
            _ => Refusal::ReadsOnly,
        });
    }
    let applicant =
        Applicant { group: group.clone(), user: caller.user.clone(), account: caller.account, place };
    Ok(P::prove(applicant, Seal(())))
}

/// What a store knows about a call in a group, all read at one moment: the session, the caller's place in the group,
/// and what the call asks for there. Only [`admit_by`] gives away what was found.
#[derive(Clone, Debug)]
pub struct Evidence<F> {
    /// The session or the token, valid or not. `None` if there is none.
    pub session: Option<Session>,
    /// The place of the session's user in the group. `None` if the group does not exist.
    pub place: Option<Place>,
    found: Option<F>,
}

impl<F> Evidence<F> {
    /// Evidence of a store that found this.
    pub fn new(session: Option<Session>, place: Option<Place>, found: Option<F>) -> Self {
        Self { session, place, found }
    }
}

/// The proof of a standing, with what the call asked for, if that is there. Or why there is none.
pub type Admission<P, F> = Result<(P, Option<F>), Refusal>;

/// Lets a session call a method with this rule, and admits its user to the group: [`authenticate`] and [`admit`] on
/// facts of the same moment.
///
/// # Errors
/// Those of [`authenticate`]. Those of [`admit`] are in the returned admission.
pub fn admit_by<P: Proof, F>(
    rule: impl Into<Rule>,
    group: &GroupId,
    evidence: Evidence<F>,
    now: SystemTime,
) -> Result<(Caller, Admission<P, F>), Refusal> {
    let caller = authenticate(rule, evidence.session.ok_or(Refusal::NotLoggedIn)?, now)?;
    let admission = admit(&caller, group, evidence.place).map(|proof| (proof, evidence.found));
    Ok((caller, admission))
}

/// Checks that a member may unlist a file, or list other content in its place: only its publisher and the group's
/// owner may.
///
/// # Errors
/// [`Refusal::NotThePublisher`].
pub fn may_unlist(member: &Membership, publisher: &Username) -> Result<(), Refusal> {
    if member.is_owner() || member.user() == publisher { Ok(()) } else { Err(Refusal::NotThePublisher) }
}

#[cfg(test)]
mod tests;
