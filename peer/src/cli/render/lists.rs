//! Lists and status, as text and as JSON.

use proto::pb;
use serde_json::{Value, json};

use super::{escape, hex, name, optional, table, time, time_text};
use crate::{paths, units};

/// Returns a user's standing in a group as one word.
pub(in crate::cli) fn standing(standing: pb::Standing) -> &'static str {
    match standing {
        pb::Standing::Unspecified | pb::Standing::None => "none",
        pb::Standing::Requested => "requested",
        pb::Standing::Reader => "reader",
        pb::Standing::Member => "member",
        pb::Standing::Manager => "manager",
        pb::Standing::Owner => "owner",
    }
}

/// `list-groups`.
pub(in crate::cli) fn groups(groups: &[pb::Group]) -> (Value, String) {
    let object = |group: &pb::Group| {
        json!({
            "id": group.group_id,
            "owner": group.owner,
            "members": group.members,
            "standing": standing(group.standing()),
        })
    };
    let row = |group: &pb::Group| {
        vec![
            name(&group.group_id),
            name(&group.owner),
            group.members.to_string(),
            standing(group.standing()).to_owned(),
        ]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    let all: Vec<_> = groups.iter().map(object).collect();
    (json!({"groups": all}), listing("no groups", &["GROUP", "OWNER", "MEMBERS", "YOU"], &rows))
}

/// `list-requests`.
pub(in crate::cli) fn requests(requests: &[pb::JoinRequest]) -> (Value, String) {
    let all: Vec<_> = requests
        .iter()
        .map(|request| json!({"user": request.username, "since": time(request.since)}))
        .collect();
    let rows: Vec<_> =
        requests.iter().map(|request| vec![name(&request.username), time_text(request.since)]).collect();
    (json!({"requests": all}), listing("no requests to join", &["USER", "SINCE"], &rows))
}

/// `list-members`.
pub(in crate::cli) fn members(members: &[pb::Member]) -> (Value, String) {
    let object = |member: &pb::Member| json!({"user": member.username, "role": standing(member.role()), "since": time(member.since)});
    let row = |member: &pb::Member| {
        vec![name(&member.username), standing(member.role()).to_owned(), time_text(member.since)]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    let all: Vec<_> = members.iter().map(object).collect();
    (json!({"members": all}), listing("no members", &["USER", "ROLE", "SINCE"], &rows))
}

/// `list-invites`.
pub(in crate::cli) fn invites(invites: &[pb::Invite]) -> (Value, String) {
    let object = |invite: &pb::Invite| {
        json!({
            "invite_id": invite.invite_id,
            "user": invite.username,
            "name": optional(&invite.name),
            "uses": invite.uses,
            "uses_left": invite.uses_left,
            "since": time(invite.since),
            "expires_at": time(invite.expires_at),
        })
    };
    let row = |invite: &pb::Invite| {
        vec![
            name(&invite.invite_id),
            name(&invite.username),
            format!("{} of {}", invite.uses_left, invite.uses),
            time_text(invite.expires_at),
            name(&invite.name),
        ]
    };
    let rows: Vec<_> = invites.iter().map(row).collect();
    let all: Vec<_> = invites.iter().map(object).collect();
    let head = ["ID", "BY", "LEFT", "EXPIRES", "FILE"];
    (json!({"invites": all}), listing("no invitations", &head, &rows))
}

/// `list-files`.
pub(in crate::cli) fn files(files: &[pb::File]) -> (Value, String) {
    let header = |file: &pb::File| file.header.clone().unwrap_or_default();
    let object = |file: &pb::File| {
        json!({
            "name": header(file).name,
            "size": header(file).length,
            "files": header(file).folder.map(|folder| folder.files),
            "seeders": file.seeders,
            "leechers": file.leechers,
            "copies": file.seeders,
            "publisher": file.publisher,
            "since": time(file.since),
            "sha1": hex(&header(file).sha1),
            "blake3": hex(&header(file).blake3),
        })
    };
    let row = |file: &pb::File| {
        let directory = if header(file).folder.is_some() { "/" } else { "" };
        vec![
            format!("{}{directory}", name(&header(file).name)),
            units::size(header(file).length),
            file.seeders.to_string(),
            file.leechers.to_string(),
            name(&file.publisher),
            time_text(file.since),
        ]
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    let all: Vec<_> = files.iter().map(object).collect();
    let head = ["NAME", "SIZE", "SEEDERS", "LEECHERS", "PUBLISHER", "SINCE"];
    (json!({"files": all}), listing("no files", &head, &rows))
}

/// `list-files` of a folder.
pub(in crate::cli) fn entries(
    group: &str,
    file: &str,
    first: &pb::ListEntriesResponse,
    entries: &[pb::FolderEntry],
) -> (Value, String) {
    use pb::folder_entry::Kind;
    let object = |entry: &pb::FolderEntry| match &entry.kind {
        Some(Kind::File(file)) => json!({
            "path": entry.path,
            "kind": "file",
            "size": file.length,
            "executable": file.executable,
            "blake3": hex(&file.blake3),
        }),
        Some(Kind::Link(link)) => json!({"path": entry.path, "kind": "link", "target": link.target}),
        Some(Kind::Directory(_)) | None => json!({"path": entry.path, "kind": "directory"}),
    };
    let row = |entry: &pb::FolderEntry| {
        let path = name(&entry.path);
        let (size, mark, path) = match &entry.kind {
            Some(Kind::File(file)) => {
                (units::size(file.length), if file.executable { "x" } else { "" }, path)
            }
            Some(Kind::Link(link)) => (String::new(), "l", format!("{path} -> {}", name(&link.target))),
            Some(Kind::Directory(_)) | None => (String::new(), "", format!("{path}/")),
        };
        vec![size, mark.to_owned(), path]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let all: Vec<_> = entries.iter().map(object).collect();
    let object =
        json!({"group": group, "name": file, "files": first.files, "size": first.size, "entries": all});
    (object, listing("an empty folder", &["SIZE", "", "PATH"], &rows))
}

/// `who`.
pub(in crate::cli) fn peers(group: &str, file: &str, answer: &pb::ListPeersResponse) -> (Value, String) {
    let object = |peer: &pb::FilePeer| {
        json!({
            "user": peer.username,
            "token": optional(&peer.token),
            "peer_id": peer.peer_id,
            "pieces": peer.pieces,
            "complete": peer.pieces >= answer.pieces,
            "load": peer.load,
            "own": peer.own,
        })
    };
    let row = |peer: &pb::FilePeer| {
        let percent = (peer.pieces * 100).checked_div(answer.pieces).unwrap_or(100);
        let id = peer.peer_id.get(..8).unwrap_or(&peer.peer_id);
        let own = if peer.own { "this peer" } else { "" };
        vec![
            who(&peer.username, &peer.token),
            name(id),
            format!("{percent}%"),
            format!("{} of {}", peer.pieces, answer.pieces),
            peer.load.to_string(),
            own.to_owned(),
        ]
    };
    let rows: Vec<_> = answer.peers.iter().map(row).collect();
    let peers: Vec<_> = answer.peers.iter().map(object).collect();
    let head = ["USER", "PEER", "HAS", "PIECES", "UPLOADS", ""];
    let object = json!({"group": group, "name": file, "pieces": answer.pieces, "peers": peers});
    (object, listing("nobody shares or downloads it now", &head, &rows))
}

/// `list-shares`.
pub(in crate::cli) fn shares(shares: &[pb::Share]) -> (Value, String) {
    let object = |share: &pb::Share| {
        json!({
            "group": share.group_id,
            "name": share.name,
            "path": share.path,
            "path_base64": paths::exact_bytes(&share.path_bytes),
            "size": share.size,
            "done_bytes": share.done_bytes,
            "uploaded_bytes": share.uploaded_bytes,
            "cause": optional(&share.cause),
            "changed_files": share.changed_files,
        })
    };
    let row = |share: &pb::Share| {
        let offered = match share.cause.as_str() {
            "" => units::size(share.done_bytes),
            cause if !share.changed_files.is_empty() => {
                format!("{}: {}", units::size(share.done_bytes), name(cause))
            }
            cause => format!("not shared now: {}", name(cause)),
        };
        vec![
            name(&share.group_id),
            name(&share.name),
            units::size(share.size),
            offered,
            units::size(share.uploaded_bytes),
            name(&share.path),
        ]
    };
    let rows: Vec<_> = shares.iter().map(row).collect();
    let all: Vec<_> = shares.iter().map(object).collect();
    let head = ["GROUP", "NAME", "SIZE", "OFFERED", "UPLOADED", "PATH"];
    (json!({"shares": all}), listing("no shares", &head, &rows))
}

/// A token in JSON.
pub(in crate::cli) fn token_json(token: &pb::Token) -> Value {
    json!({
        "name": token.name,
        "groups": token.group_ids,
        "allow": token_allow(token.allow()),
        "since": time(token.since),
        "last_used_at": time(token.last_used_at),
        "expires_at": time(token.expires_at),
    })
}

fn token_allow(allow: pb::TokenAllow) -> &'static str {
    match allow {
        pb::TokenAllow::Unspecified | pb::TokenAllow::Read => "read",
        pb::TokenAllow::Share => "share",
        pb::TokenAllow::Manage => "manage",
    }
}

/// `list-tokens`.
pub(in crate::cli) fn tokens(tokens: &[pb::Token]) -> (Value, String) {
    let row = |token: &pb::Token| {
        let groups = if token.group_ids.is_empty() { "all".to_owned() } else { token.group_ids.join(", ") };
        vec![
            name(&token.name),
            token_allow(token.allow()).to_owned(),
            name(&groups),
            time_text(token.last_used_at),
            time_text(token.expires_at),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    let all: Vec<_> = tokens.iter().map(token_json).collect();
    let head = ["NAME", "ALLOWS", "GROUPS", "LAST USED", "EXPIRES"];
    (json!({"tokens": all}), listing("no tokens", &head, &rows))
}

/// A user, or the machine of a user, as people see it.
pub(in crate::cli) fn who(user: &str, token: &str) -> String {
    if token.is_empty() { name(user) } else { format!("{}/{}", name(user), name(token)) }
}

/// `list-subscriptions`.
pub(in crate::cli) fn subscriptions(subscriptions: &[pb::Subscription]) -> (Value, String) {
    let object = |one: &pb::Subscription| {
        json!({
            "group": one.group_id,
            "directory": one.directory,
            "directory_base64": paths::exact_bytes(&one.directory_bytes),
            "match": one.patterns,
            "update": one.update,
            "started": one.started,
            "cause": optional(&one.cause),
        })
    };
    let row = |one: &pb::Subscription| {
        let patterns = if one.patterns.is_empty() { "everything".to_owned() } else { one.patterns.join(" ") };
        let cells = [&one.group_id, &one.directory, &patterns, &one.started.to_string(), &one.cause];
        cells.map(|cell| name(cell)).to_vec()
    };
    let rows: Vec<_> = subscriptions.iter().map(row).collect();
    let all: Vec<_> = subscriptions.iter().map(object).collect();
    let head = ["GROUP", "DIRECTORY", "MATCH", "STARTED", "PROBLEM"];
    (json!({"subscriptions": all}), listing("no subscriptions", &head, &rows))
}

fn listing(nothing: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() { nothing.to_owned() } else { table(head, rows) }
}

fn receiver(receiver: &pb::Receiver) -> Value {
    let pb::Receiver { peer_id, username, group_id, name, bytes, rate } = receiver;
    json!({"peer_id": peer_id, "user": username, "group": group_id, "name": name, "bytes": bytes, "rate": rate})
}

/// `status` and `whoami`.
pub(in crate::cli) fn status(status: &pb::GetStatusResponse) -> (Value, String) {
    let object = json!({
        "user": optional(&status.username),
        "token": optional(&status.token_name),
        "peer_id": optional(&status.peer_id),
        "tls_name": optional(&status.tls_name),
        "tracker": status.tracker,
        "trackers": status.trackers,
        "tracker_connected": status.tracker_connected,
        "tracker_problem": optional(&status.tracker_problem),
        "listen": status.listen,
        "advertise": optional(&status.advertise),
        "addresses": status.addresses,
        "upload_rate": status.upload_rate,
        "download_rate": status.download_rate,
        "upload_limit": status.upload_limit,
        "download_limit": status.download_limit,
        "shares": status.shares,
        "downloads": status.downloads,
        "uploads_active": status.uploads_active,
        "uploads_waiting": status.uploads_waiting,
        "receivers": status.receivers.iter().map(receiver).collect::<Vec<_>>(),
        "session_expires_at": time(status.session_expires_at),
        "certificate_expires_at": time(status.certificate_expires_at),
        "pid": status.pid,
        "version": status.version,
    });
    let user = match status.username.as_str() {
        "" => "nobody is logged in".to_owned(),
        user => who(user, &status.token_name),
    };
    let connected = match (status.tracker_connected, status.tracker_problem.as_str()) {
        (true, _) => "connected".to_owned(),
        (false, "") => "not connected".to_owned(),
        (false, problem) => format!("not connected: {}", escape(problem)),
    };
    let others: Vec<_> = status.trackers.iter().filter(|url| **url != status.tracker).cloned().collect();
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { name(text) };
    let rows = [
        ("user", user),
        ("peer id", or_dash(&status.peer_id)),
        ("tls name", or_dash(&status.tls_name)),
        ("tracker", format!("{}, {connected}", status.tracker)),
        ("other trackers", or_dash(&others.join(", "))),
        ("listen", status.listen.clone()),
        ("advertise", or_dash(&status.addresses.join(", "))),
        ("upload", rate_text(status.upload_rate, status.upload_limit)),
        ("download", rate_text(status.download_rate, status.download_limit)),
        ("uploads", format!("{} running, {} waiting", status.uploads_active, status.uploads_waiting)),
        ("shares", status.shares.to_string()),
        ("downloads", format!("{} unfinished", status.downloads)),
        ("session until", time_text(status.session_expires_at)),
        ("certificate until", time_text(status.certificate_expires_at)),
        ("daemon", format!("pid {}, version {}", status.pid, status.version)),
    ];
    let shown = rows.iter().filter(|(key, _)| *key != "other trackers" || !others.is_empty());
    let text = shown.map(|(key, value)| format!("{key:<18} {value}\n")).collect();
    (object, text)
}

fn rate_text(rate: u64, limit: u64) -> String {
    format!("{}, limit {}", units::rate(rate), units::limit(limit))
}

/// `doctor`.
pub(in crate::cli) fn checks(checks: &[pb::Check]) -> (Value, String) {
    let word = |result| match result {
        pb::CheckResult::Unspecified | pb::CheckResult::Ok => "ok",
        pb::CheckResult::Warning => "warning",
        pb::CheckResult::Bad => "bad",
    };
    let object = |check: &pb::Check| json!({"name": check.name, "result": word(check.result()), "message": check.message});
    let all: Vec<_> = checks.iter().map(object).collect();
    let line = |check: &pb::Check| {
        format!("{:<8} {:<12} {}\n", word(check.result()), check.name, escape(&check.message))
    };
    (json!({"checks": all}), checks.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn json_keys_are_those_that_scripts_rely_on() {
        let (value, _) = groups(&[pb::Group::default()]);
        assert_eq!(keys(&value["groups"][0]), ["id", "members", "owner", "standing"]);
        let (value, _) = members(&[pb::Member::default()]);
        assert_eq!(keys(&value["members"][0]), ["role", "since", "user"]);
        let (value, _) = requests(&[pb::JoinRequest::default()]);
        assert_eq!(keys(&value["requests"][0]), ["since", "user"]);
        let (value, _) = files(&[pb::File::default()]);
        for key in ["name", "size", "seeders", "leechers", "publisher", "since"] {
            assert!(value["files"][0].get(key).is_some(), "{key}");
        }
        let (value, _) = shares(&[pb::Share::default()]);
        assert!(value["shares"][0].get("path").is_some());
        let (value, _) = status(&pb::GetStatusResponse::default());
        for key in ["user", "peer_id", "tls_name", "tracker", "listen", "advertise"] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(listing("nothing", &["NAME"], &[]), "nothing");
    }
}
