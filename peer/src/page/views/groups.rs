//! Groups, their members, and the requests to join them.

use maud::{Markup, html};
use proto::pb::{self, Standing};

use super::{button, link, name};
use crate::units;

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Owner => "owner",
        Standing::Manager => "manager",
        Standing::Member => "member",
        Standing::Reader => "reader",
        Standing::Requested => "asked to join",
        Standing::Unspecified | Standing::None => "",
    }
}

/// The user's groups.
pub(in crate::page) fn groups(groups: &[pb::Group]) -> Markup {
    if groups.is_empty() {
        return html! { p { "You are in no group yet." } };
    }
    html! {
        ul.cards {
            @for group in groups {
                li id={ "g-" (group.group_id) } {
                    @if !matches!(group.standing(), Standing::Unspecified | Standing::None | Standing::Requested) {
                        a href=(link(&["group", &group.group_id])) { (name(&group.group_id)) }
                    } @else { (name(&group.group_id)) }
                    " " small { (standing(group.standing())) " · " (units::count(group.members as usize, "member")) }
                }
            }
        }
    }
}

/// The forms that make a group, or ask to be let in.
pub(super) fn new_group() -> Markup {
    html! {
        section aria-labelledby="new-h" {
            h2 #new-h { "Another group" }
            form.inline method="post" action="/do" {
                label { "Name" input name="group" required; }
                button name="do" value="join-group" { "Ask to join" }
                button name="do" value="create-group" { "Create" }
            }
        }
    }
}

/// The requests to join a group, for its owner.
pub(in crate::page) fn requests(group: &str, requests: &[pb::JoinRequest]) -> Markup {
    let back = link(&["group", group]);
    if requests.is_empty() {
        return html! { p { "Nobody asks to join." } };
    }
    html! {
        ul.cards {
            @for request in requests {
                li id={ "r-" (request.username) } {
                    (name(&request.username)) " "
                    (button("accept", "Accept", &[("group", group), ("user", &request.username)], &back, None))
                    (button("reject", "Reject", &[("group", group), ("user", &request.username)], &back, None))
                }
            }
        }
    }
}

/// The members of a group. Its owner may remove the others.
pub(in crate::page) fn members(group: &str, members: &[pb::Member], is_owner: bool, user: &str) -> Markup {
    let back = link(&["group", group]);
    html! {
        ul.cards {
            @for member in members {
                li id={ "m-" (member.username) } {
                    (name(&member.username)) " " small { (standing(member.role())) }
                    @if is_owner && member.username != user {
                        (button("remove", "Remove", &[("group", group), ("user", &member.username)], &back,
                            Some("Remove this member from the group?")))
                    }
                }
            }
        }
        (button("leave-group", "Leave the group", &[("group", group)], "/", Some("Leave this group?")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_owner_removes_and_only_others() {
        let member = |username: &str, role: Standing| pb::Member {
            username: username.into(),
            role: role.into(),
            ..Default::default()
        };
        let all = [member("ann", Standing::Owner), member("bob", Standing::Member)];
        let shown = members("g1", &all, true, "ann").into_string();
        assert_eq!(shown.matches("value=\"remove\"").count(), 1);
        assert!(shown.contains("name=\"user\" value=\"bob\""));
        assert!(!members("g1", &all, false, "bob").into_string().contains("value=\"remove\""));
    }
}
