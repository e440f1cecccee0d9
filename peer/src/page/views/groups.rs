//! Groups, their members, and the requests to join them.

use maud::{Markup, html};
use proto::pb::{self, Standing};

use super::{button, link, name, outcome};
use crate::{invitation::Link, units};

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

/// The members of a group. Its owner may remove the others, and a manager those who are none.
pub(in crate::page) fn members(group: &str, members: &[pb::Member], role: Standing, user: &str) -> Markup {
    let removes = |member: &pb::Member| match role {
        Standing::Owner => member.username != user,
        Standing::Manager => matches!(member.role(), Standing::Member | Standing::Reader),
        _ => false,
    };
    let back = link(&["group", group]);
    html! {
        ul.cards {
            @for member in members {
                li id={ "m-" (member.username) } {
                    (name(&member.username)) " " small { (standing(member.role())) }
                    @if removes(member) {
                        (button("remove", "Remove", &[("group", group), ("user", &member.username)], &back,
                            Some("Remove this member from the group?")))
                    }
                }
            }
        }
        @if matches!(role, Standing::Owner | Standing::Manager) { (new_invite(group, &back)) }
        (button("leave-group", "Leave the group", &[("group", group)], "/", Some("Leave this group?")))
    }
}

/// The form that invites others.
fn new_invite(group: &str, back: &str) -> Markup {
    html! {
        form.inline method="post" action="/do" {
            input type="hidden" name="back" value=(back);
            input type="hidden" name="group" value=(group);
            label { "How many people" input name="uses" inputmode="numeric" placeholder="1" size="6"; }
            label { "For how long" input name="expires" placeholder="7d" size="6"; }
            button name="do" value="invite" { "Invite" }
        }
    }
}

/// A link that invites. It is not shown again.
pub(in crate::page) fn invited(link: &Link, back: &str) -> Markup {
    let content = html! {
        p { "Whoever has this link becomes a member. It is shown once." }
        p { code { (link.text) } }
        p { "They run " code { "peer join LINK" } "." }
        @if link.is_local {
            p.bad { "This link works on this machine only: the tracker does not know the name that others use." }
        }
    };
    outcome("Invitation", content, back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_manages_the_group_removes_and_invites() {
        let member = |username: &str, role: Standing| pb::Member {
            username: username.into(),
            role: role.into(),
            ..Default::default()
        };
        let all = [member("ann", Standing::Owner), member("bob", Standing::Member)];
        let shown = members("g1", &all, Standing::Owner, "ann").into_string();
        assert_eq!(shown.matches("value=\"remove\"").count(), 1);
        assert!(shown.contains("name=\"user\" value=\"bob\""));
        assert!(!members("g1", &all, Standing::Member, "bob").into_string().contains("value=\"remove\""));
        let managed = members("g1", &all, Standing::Manager, "eve").into_string();
        assert!(managed.contains("name=\"user\" value=\"bob\"") && !managed.contains("value=\"ann\""));
        assert!(
            managed.contains("value=\"invite\"")
                && !members("g1", &all, Standing::Reader, "bob").into_string().contains("invite")
        );
    }
}
