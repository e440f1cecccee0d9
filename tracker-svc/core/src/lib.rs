//! The tracker's rules. Pure: no I/O, no clock, no ambient randomness, no async. `now` and randomness are
//! arguments.

pub mod access;
pub mod address;
pub mod audit;
pub mod change;
pub mod invite;
pub mod newcomers;
pub mod operator;
pub mod others;
pub mod quota;
pub mod refusal;
pub mod scope;
pub mod selection;
pub mod session;
pub mod swarm;
pub mod swarm_counts;
pub mod throttle;
pub mod token;

pub use access::{Applicant, Caller, Management, Membership, Ownership, Requirement, Standing};
pub use audit::{Action, Actor, Origin};
pub use change::Change;
pub use refusal::Refusal;
pub use session::{Session, SessionHash};
