//! What the operator of a tracker allows: who makes groups, and how much a group and a user may list.

use std::collections::BTreeSet;

use domain::{FileHeader, GroupId, Username};

use crate::refusal::Refusal;

pub use crate::refusal::{TooMuch, Whose};

/// Who may make groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCreators(BTreeSet<Username>);

impl GroupCreators {
    /// These users, and nobody else. Everybody if there are none.
    pub fn new(users: impl IntoIterator<Item = Username>) -> Self {
        Self(users.into_iter().collect())
    }

    /// Whether the user may make a group.
    ///
    /// # Errors
    /// [`Refusal::GroupCreationClosed`] if not.
    pub fn admit(&self, user: &Username) -> Result<(), Refusal> {
        if self.0.is_empty() || self.0.contains(user) { Ok(()) } else { Err(Refusal::GroupCreationClosed) }
    }
}

/// What is listed, of a group or by a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The length of all files, in bytes.
    pub bytes: u64,
    /// The number of files.
    pub files: u64,
}

/// How much may be listed. `None` stands for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The length of all files, in bytes.
    pub bytes: Option<u64>,
    /// The number of files.
    pub files: Option<u64>,
}

/// How much each group, and each user over all groups, may list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingQuotas {
    /// A group.
    pub group: Allowance,
    /// A user.
    pub user: Allowance,
}

impl ListingQuotas {
    /// Checks that one more file fits, in a group and of a user that have listed this much.
    ///
    /// # Errors
    /// [`Refusal::TooMuch`] if it does not.
    pub fn admit(
        &self,
        file: &FileHeader,
        (group, of_group): (&GroupId, Listed),
        (user, of_user): (&Username, Listed),
    ) -> Result<(), Refusal> {
        self.group.admit(file, of_group, || Whose::Group(group.clone()))?;
        self.user.admit(file, of_user, || Whose::User(user.clone()))
    }
}

impl Allowance {
    fn admit(self, file: &FileHeader, listed: Listed, whose: impl FnOnce() -> Whose) -> Result<(), Refusal> {
        let (name, more) = (&file.name, file.layout.length());
        let fits = |used: u64, more: u64, limit: u64| used.checked_add(more).is_some_and(|sum| sum <= limit);
        let too_much = match (self.files, self.bytes) {
            (Some(limit), _) if !fits(listed.files, 1, limit) => {
                TooMuch::Files { whose: whose(), limit, listed: listed.files, name: name.clone() }
            }
            (_, Some(limit)) if !fits(listed.bytes, more, limit) => {
                TooMuch::Bytes { whose: whose(), limit, listed: listed.bytes, name: name.clone(), more }
            }
            _ => return Ok(()),
        };
        Err(Refusal::TooMuch(Box::new(too_much)))
    }
}

#[cfg(test)]
mod tests {
    use domain::PieceLayout;

    use super::*;

    fn movie(length: u64) -> FileHeader {
        FileHeader {
            name: "movie.mp4".parse().expect("a name"),
            layout: PieceLayout::new(length).expect("a length"),
            sha1: [1; 20].into(),
            blake3: [2; 32].into(),
            folder: None,
        }
    }

    fn listed(bytes: u64, files: u64) -> Listed {
        Listed { bytes, files }
    }

    /// The text of the refusal, or nothing.
    fn asked(quotas: ListingQuotas, length: u64, of_group: Listed, of_user: Listed) -> String {
        let (group, user) = ("g1".parse().expect("a group"), "ann".parse().expect("a user"));
        let admitted = quotas.admit(&movie(length), (&group, of_group), (&user, of_user));
        admitted.err().map(|refusal| refusal.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_fits_exactly_is_listed_and_a_byte_or_file_more_is_not() {
        let quotas = ListingQuotas {
            group: Allowance { bytes: Some(10 << 30), files: Some(3) },
            user: Allowance { bytes: Some(20 << 30), files: Some(5) },
        };
        let ask = |length, group, user| asked(quotas, length, group, user);
        assert_eq!(ask(10 << 30, listed(0, 0), listed(0, 0)), "");
        assert_eq!(ask(1 << 30, listed(9 << 30, 2), listed(19 << 30, 4)), "");
        assert_eq!(
            ask(700 << 20, listed((98 << 30) / 10, 1), listed(0, 0)),
            "group g1 may list 10.0 GiB; 9.8 GiB are listed and movie.mp4 has 700.0 MiB; unpublish something or ask \
             the operator"
        );
        assert_eq!(
            ask(1, listed(0, 3), listed(0, 0)),
            "group g1 may list 3 files; 3 are listed, and movie.mp4 is one more; unpublish one or ask the operator"
        );
        assert_eq!(
            ask(2, listed(0, 0), listed((20 << 30) - 1, 0)),
            "user ann may list 20.0 GiB; 20.0 GiB are listed and movie.mp4 has 2 B; unpublish something or ask the \
             operator"
        );
        assert!(ask(0, listed(0, 0), listed(0, 5)).starts_with("user ann may list 5 files"));
        // Limits may have been lowered since.
        assert!(
            ask(0, listed(11 << 30, 1), listed(0, 0)).starts_with("group g1 may list 10.0 GiB; 11.0 GiB")
        );
    }

    #[test]
    fn without_limits_everything_fits() {
        assert_eq!(asked(ListingQuotas::default(), 1 << 40, listed(u64::MAX, 9), listed(u64::MAX, 9)), "");
        let none =
            ListingQuotas { group: Allowance { bytes: Some(u64::MAX), files: None }, ..Default::default() };
        assert!(
            !asked(none, 1, listed(u64::MAX, 0), listed(0, 0)).is_empty(),
            "a sum that overflows is too much"
        );
    }

    #[test]
    fn who_may_make_groups() {
        let user = |name: &str| name.parse::<Username>().expect("a user");
        assert_eq!(GroupCreators::default().admit(&user("ann")), Ok(()));
        let some = GroupCreators::new([user("ann"), user("bob")]);
        assert_eq!(some.admit(&user("bob")), Ok(()));
        assert_eq!(some.admit(&user("eve")), Err(Refusal::GroupCreationClosed));
    }
}
