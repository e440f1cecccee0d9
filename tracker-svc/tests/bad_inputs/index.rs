//! Every kind of bad input that Mini Torrent is tested against, what has to come of it, and the tests that prove it.
//!
//! A proof is `file::function`; a path without a folder is beside this file. [`every_proof_exists`] keeps it honest.

use std::{collections::HashMap, fs, path::Path};

/// What is sent, what has to come of it, and what proves it.
struct Line {
    id: &'static str,
    input: &'static str,
    outcome: &'static str,
    proofs: &'static [&'static str],
}

const fn line(
    id: &'static str,
    input: &'static str,
    outcome: &'static str,
    proofs: &'static [&'static str],
) -> Line {
    Line { id, input, outcome, proofs }
}

#[rustfmt::skip]
const LINES: &[Line] = &[
    // The wire.
    line("B01", "an empty request to every method", "INVALID_ARGUMENT or UNAUTHENTICATED, never a fault",
        &["wire.rs::empty_requests_are_answered_with_reason"]),
    line("B02", "noise for protobuf", "INVALID_ARGUMENT; the connection stays usable",
        &["wire.rs::noise_for_protobuf_leaves_the_connection_usable"]),
    line("B03", "a message prefix that claims 4 GiB", "OUT_OF_RANGE, no memory taken",
        &["wire.rs::a_length_of_four_gigabytes_takes_no_memory"]),
    line("B04", "a message of the limit, and of one byte more", "read; OUT_OF_RANGE",
        &["wire.rs::the_limit_of_a_message_is_exact"]),
    line("B05", "a thousand calls that claim the limit and send nothing", "bounded memory, ended in 15 s",
        &["floods.rs::many_claims_of_large_messages_take_little_memory"]),
    line("B06", "compressed messages", "UNIMPLEMENTED or INVALID_ARGUMENT, nothing inflated",
        &["wire.rs::nothing_is_inflated"]),
    line("B07", "unknown methods; unknown fields; deep nesting", "UNIMPLEMENTED; ignored; INVALID_ARGUMENT",
        &["wire.rs::unknown_methods_fields_and_depths"]),
    line("B08", "17 KiB of metadata; a thousand headers", "refused, others served",
        &["wire.rs::huge_metadata_is_refused_and_others_are_served"]),
    line("B09", "nonsense in grpc-timeout", "ignored or DEADLINE_EXCEEDED",
        &["wire.rs::nonsense_deadlines_are_ignored_or_over",
          "proto/src/transport/deadline.rs::the_earlier_deadline_counts_and_nonsense_is_ignored"]),
    line("B10", "HTTP/1.1, TLS to a plain port and the reverse, noise", "closed in seconds",
        &["wire.rs::other_protocols_are_closed_soon"]),
    // Accounts and sessions.
    line("B11", "no token, odd tokens, two tokens, a token of 1 MiB", "UNAUTHENTICATED, or refused as metadata",
        &["accounts.rs::what_is_no_token_is_no_session", "tracker-svc/src/grpc/authn.rs::only_one_bearer_token_counts",
          "wire.rs::huge_metadata_is_refused_and_others_are_served"]),
    line("B12", "tokens that ended, ran out, are another tracker's, or have one character changed", "UNAUTHENTICATED",
        &["accounts.rs::tokens_that_ended_or_were_never_given_are_refused",
          "tracker-svc/src/domain/session.rs::sessions_end_by_idleness_age_and_disabling"]),
    line("B13", "SQL and shell in every text", "refused or found nowhere; nothing changes",
        &["accounts.rs::injections_change_nothing"]),
    line("B14", "usernames that are none", "INVALID_ARGUMENT",
        &["accounts.rs::bad_usernames_make_no_account", "proto/src/domain/names.rs::usernames"]),
    line("B15", "short, long, huge and common passwords", "INVALID_ARGUMENT or OUT_OF_RANGE, and no hash is run",
        &["accounts.rs::bad_passwords_are_refused_before_they_cost_anything",
          "tracker-svc/src/password.rs::what_may_be_a_password"]),
    line("B16", "passwords with NUL, and in both forms of a letter", "work, and are one password",
        &["accounts.rs::passwords_may_hold_anything_and_both_forms_of_a_letter_are_one"]),
    line("B17", "the same name fifty times at once", "one account, else ALREADY_EXISTS",
        &["accounts.rs::a_name_is_given_once_whoever_races"]),
    line("B18", "login of nobody, and with a wrong password", "the same code, words and time",
        &["accounts.rs::an_unknown_user_and_a_wrong_password_look_the_same"]),
    line("B19", "a thousand wrong passwords", "RESOURCE_EXHAUSTED with RetryInfo; the owner still gets in",
        &["accounts.rs::guessing_is_throttled_and_does_not_lock_the_owner_out",
          "accounts.rs::many_logins_at_once_take_no_more_memory_than_the_cores_that_hash",
          "tracker-svc/src/password.rs::no_more_memory_is_kept_than_was_at_work_at_once",
          "tracker-svc/src/domain/throttle.rs::memory_is_bounded"]),
    line("B20", "a change of password with a wrong old one", "PERMISSION_DENIED, sessions stay; a right one ends the others",
        &["accounts.rs::a_wrong_old_password_changes_nothing_and_a_new_one_ends_other_sessions"]),
    // Groups.
    line("B21", "group names that are none", "INVALID_ARGUMENT",
        &["groups.rs::bad_group_names_make_no_group", "proto/src/domain/names.rs::groups"]),
    line("B22", "ids of a wrong size, nil, and unknown ones", "INVALID_ARGUMENT; for outsiders PERMISSION_DENIED",
        &["swarm.rs::tickets_are_for_ones_own_peer_and_each_file_once", "groups.rs::an_outsider_can_not_tell_what_exists",
          "proto/src/domain/ids.rs::file_ids_are_16_bytes_and_not_nil"]),
    line("B23", "joining twice, one's own group, as a member, after a rejection", "ALREADY_EXISTS; the last is granted",
        &["groups.rs::one_asks_once_and_again_after_a_rejection"]),
    line("B24", "one request, member, group or file too many", "RESOURCE_EXHAUSTED",
        // A thousand members by the wire would take a minute of hashing: the rule of every quota is one function.
        &["groups.rs::quotas_of_groups_and_requests_hold",
          "tracker-svc/src/domain/quota.rs::the_limit_itself_fits_and_one_more_does_not"]),
    line("B25", "answering one's own request, as no owner, or one that is over", "PERMISSION_DENIED; FAILED_PRECONDITION",
        &["groups.rs::only_the_owner_answers_and_only_open_requests"]),
    line("B26", "removing the owner, handing the group to an outsider", "FAILED_PRECONDITION",
        &["groups.rs::the_owner_stays_until_the_group_is_a_members"]),
    line("B27", "every method by callers who may not", "UNAUTHENTICATED or PERMISSION_DENIED, cell by cell",
        &["access.rs::every_method_lets_in_whom_it_should_and_nobody_else", "access.rs::weakening_any_line_shows"]),
    line("B28", "an outsider with the right names and ids", "PERMISSION_DENIED, the same bytes as for wrong ones",
        &["groups.rs::an_outsider_can_not_tell_what_exists"]),
    // Files.
    line("B29", "file names that are paths", "INVALID_ARGUMENT",
        &["files.rs::bad_file_names_are_not_listed", "proto/src/domain/names.rs::files"]),
    line("B30", "file names with control characters", "INVALID_ARGUMENT", &["files.rs::bad_file_names_are_not_listed"]),
    line("B31", "file names with bidi and invisible characters", "INVALID_ARGUMENT",
        &["files.rs::bad_file_names_are_not_listed"]),
    line("B32", "file names of 255 bytes and more", "granted; INVALID_ARGUMENT", &["files.rs::bad_file_names_are_not_listed"]),
    line("B33", "a file name that is no UTF-8", "INVALID_ARGUMENT", &["files.rs::a_name_that_is_no_text_is_refused"]),
    line("B34", "names that differ by form, case or width alone", "ALREADY_EXISTS; decomposed INVALID_ARGUMENT",
        &["files.rs::names_that_people_would_mix_up_are_one_name"]),
    line("B35", "names that some file system or this program reserves", "INVALID_ARGUMENT",
        &["files.rs::bad_file_names_are_not_listed"]),
    line("B36", "lengths of 1 TiB + 1 and more", "INVALID_ARGUMENT, no memory taken",
        &["files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken"]),
    line("B37", "a file of no bytes, with and without pieces", "granted without; INVALID_ARGUMENT with",
        &["files.rs::an_empty_file_and_one_of_equal_pieces_are_files",
          "files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken"]),
    line("B38", "a piece too few or too many", "INVALID_ARGUMENT",
        &["files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken"]),
    line("B39", "hashes of a wrong size", "INVALID_ARGUMENT", &["files.rs::hashes_of_a_wrong_size_or_root_are_refused"]),
    line("B40", "any other length of pieces", "INVALID_ARGUMENT",
        &["files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken"]),
    // There is no field for the number of pieces: it follows from the length.
    line("B41", "the most pieces there may be claimed, and one sent", "INVALID_ARGUMENT, no memory taken",
        &["files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken"]),
    line("B42", "indices that overflow when multiplied", "INVALID_ARGUMENT or OUT_OF_RANGE",
        &["files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken",
          "peer/tests/bad_inputs/requests.rs::sets_of_pieces_that_can_not_be"]),
    line("B43", "frames out of order, twice, missing, never ending, a byte a second", "INVALID_ARGUMENT; DEADLINE_EXCEEDED",
        &["files.rs::frames_out_of_order_are_refused", "files.rs::a_publication_that_stops_or_drips_is_given_up"]),
    line("B44", "more pieces, files or bytes of manifests than there may be", "INVALID_ARGUMENT; RESOURCE_EXHAUSTED",
        // Ten thousand files by the wire would take minutes: the rule of every quota is one function.
        &["largest.rs::manifests_have_a_quota_that_unfinished_ones_count_for",
          "files.rs::numbers_that_can_not_be_are_refused_before_memory_is_taken",
          "tracker-svc/src/domain/quota.rs::the_limit_itself_fits_and_one_more_does_not"]),
    line("B45", "a root that the pieces do not fold into", "INVALID_ARGUMENT",
        &["files.rs::hashes_of_a_wrong_size_or_root_are_refused"]),
    line("B46", "all pieces alike, a sparse file of 1 GiB", "granted",
        &["files.rs::an_empty_file_and_one_of_equal_pieces_are_files"]),
    line("B47", "the same file again; other content of that name", "the file that is there; ALREADY_EXISTS",
        &["files.rs::the_same_again_is_no_error_and_other_content_is"]),
    line("B48", "unpublishing another's file, or none", "PERMISSION_DENIED; NOT_FOUND",
        &["files.rs::only_publisher_and_owner_unpublish"]),
    // The swarm.
    line("B49", "announces for another's peer, or where one is no member", "PERMISSION_DENIED, never counted",
        &["swarm.rs::nobody_announces_for_another_or_where_they_are_no_member"]),
    line("B50", "addresses that lead nowhere or inwards", "INVALID_ARGUMENT",
        &["swarm.rs::addresses_that_lead_nowhere_are_not_handed_out",
          "tracker-svc/src/domain/address.rs::what_leads_nowhere_or_inwards_is_refused"]),
    line("B51", "bitfields of a wrong size, spare bits", "INVALID_ARGUMENT",
        &["swarm.rs::what_is_no_bitfield_of_the_file_ends_the_stream",
          "proto/src/domain/bitfield.rs::refuses_short_long_and_spare"]),
    line("B52", "announces and calls without end; a 17th peer", "RESOURCE_EXHAUSTED, others served",
        &["swarm.rs::a_flood_of_announces_or_calls_is_refused_and_others_are_served", "swarm.rs::a_user_has_sixteen_peers"]),
    // An announce names no epoch, clock or instance of its own, so there is nothing in it to lie about: the tracker
    // tells, and peers take an epoch only upwards, and serve by no clock that is far off.
    line("B53", "lies about epochs and clocks", "ignored; nothing is served by such a clock",
        &["peer/tests/engine/admission.rs::a_higher_epoch_ends_running_streams_at_once",
          "peer/tests/bad_inputs/rights.rs::a_clock_that_goes_off_ends_streams_and_lets_nobody_in_until_it_is_right"]),
    line("B54", "tickets for 65 files, for one twice, for another's peer", "INVALID_ARGUMENT; PERMISSION_DENIED",
        &["swarm.rs::tickets_are_for_ones_own_peer_and_each_file_once"]),
    line("B55", "certificate requests with names of others, other keys, wrong proofs", "names ignored; INVALID_ARGUMENT",
        &["swarm.rs::a_certificate_says_what_the_tracker_knows_and_not_what_was_asked",
          "tracker-svc/src/ca.rs::only_p256_requests_signed_by_their_own_key_are_taken"]),
    // Peers.
    line("B56", "what is no ticket", "UNAUTHENTICATED",
        &["peer/tests/bad_inputs/rights.rs::what_is_no_ticket_lets_nobody_in",
          "proto/src/ticket.rs::other_keys_and_other_kinds_of_token_are_refused"]),
    line("B57", "a ticket with any bit changed", "UNAUTHENTICATED",
        &["proto/src/ticket.rs::no_bit_of_a_ticket_may_change",
          "peer/tests/bad_inputs/rights.rs::what_is_no_ticket_lets_nobody_in"]),
    line("B58", "tickets for other files, groups, uses, of other keys", "UNAUTHENTICATED or PERMISSION_DENIED",
        &["peer/tests/bad_inputs/rights.rs::every_method_asks_for_certificate_and_ticket",
          "peer/src/serve/admission/tests.rs::a_request_is_let_in_by_every_check_or_not_at_all",
          "proto/src/ticket.rs::only_the_very_claims_of_a_ticket_count", "proto/src/ticket.rs::no_check_can_be_left_out"]),
    line("B59", "tickets too early and too late, by a minute", "UNAUTHENTICATED; within a minute granted",
        &["peer/tests/bad_inputs/rights.rs::every_method_asks_for_certificate_and_ticket",
          "proto/src/ticket.rs::time_counts_to_the_second"]),
    line("B60", "the right ticket with another's certificate, none, an expired or foreign one", "PERMISSION_DENIED; no handshake",
        &["peer/tests/bad_inputs/rights.rs::every_method_asks_for_certificate_and_ticket",
          "peer/tests/bad_inputs/rights.rs::a_ticket_is_of_no_use_to_the_peer_that_it_was_shown_to",
          "peer/tests/bad_inputs/rights.rs::certificates_of_others_and_old_ones_end_the_handshake"]),
    line("B61", "a removed member's ticket, also midway", "UNAUTHENTICATED at once",
        &["peer/tests/bad_inputs/rights.rs::a_removed_member_is_cut_off_midway",
          "peer/src/serve/admission/tests.rs::what_changes_after_a_request_was_let_in_is_seen_before_the_first_piece",
          "peer/src/serve/admission/tests.rs::whoever_watches_is_told_nothing_after_a_change",
          "peer/tests/bad_inputs/rights.rs::a_removed_member_is_refused_after_a_restart_too",
          "peer/tests/processes/access.rs::a_removed_member_gets_no_more_bytes",
          "peer/tests/bad_inputs/rights.rs::a_ticket_that_runs_out_midway_ends_the_stream_with_the_piece"]),
    line("B62", "pieces past the end, twice, too many", "OUT_OF_RANGE or INVALID_ARGUMENT",
        &["peer/tests/bad_inputs/requests.rs::sets_of_pieces_that_can_not_be"]),
    // B63, offsets and lengths in requests: there are none, GetChunk takes whole pieces.
    line("B64", "files that are not shared in that group, pieces that are not held", "NOT_FOUND",
        &["peer/tests/bad_inputs/requests.rs::only_what_is_shared_in_that_group_and_held_is_found",
          "peer/tests/bad_inputs/rights.rs::what_is_shared_no_more_is_sent_no_more"]),
    line("B65", "more requests than slots and queue; a ninth connection", "queued; RESOURCE_EXHAUSTED with RetryInfo; refused",
        &["peer/tests/bad_inputs/requests.rs::a_full_queue_says_when_to_come_back_and_a_slot_is_free_at_once",
          "peer/tests/bad_inputs/requests.rs::a_peer_has_eight_connections"]),
    line("B66", "sources that lie, drip, stop or never end", "dropped, named, replaced",
        &["peer/tests/bad_inputs/hostile_sources.rs::wrong_bytes_are_dropped_and_blamed",
          "peer/tests/bad_inputs/hostile_sources.rs::lengths_and_places_that_can_not_be_are_dropped",
          "peer/tests/bad_inputs/hostile_sources.rs::sources_that_stop_or_drip_are_replaced",
          "peer/tests/bad_inputs/hostile_sources.rs::everybody_lying_ends_nowhere",
          "peer/tests/bad_inputs/hostile_sources.rs::a_liar_is_remembered_over_a_restart"]),
    line("B67", "a tracker that lies", "refused, nothing is written elsewhere",
        &["peer/tests/processes/lying_tracker.rs::manifests_that_can_not_be_are_refused_and_nothing_is_written",
          "peer/tests/processes/lying_tracker.rs::a_million_sources_and_times_that_can_not_be_do_no_harm",
          "peer/tests/processes/lying_tracker.rs::lists_are_shown_without_what_a_terminal_would_obey_and_end"]),
    line("B68", "rapid resets, endless headers, empty frames, pings, settings", "closed; unread answers held back; others served",
        &["floods.rs::rapid_resets_are_closed", "floods.rs::endless_headers_are_closed",
          "floods.rs::empty_data_frames_are_closed", "floods.rs::pings_and_settings_without_end_are_closed",
          "floods.rs::answers_that_nobody_reads_do_not_pile_up"]),
    line("B69", "1,500 connections that say nothing", "closed in 10 s, others get in",
        &["floods.rs::silent_connections_are_closed_and_others_get_in"]),
    line("B70", "line breaks and escapes for the log", "one escaped line",
        &["accounts.rs::log_lines_can_not_be_forged"]),
    line("B71", "bad configuration, a directory for a file, a port in use", "an exit code, a message, no panic",
        &["command_line.rs::bad_configuration_is_refused_at_once",
          "command_line.rs::two_trackers_do_not_share_a_directory"]),
    line("B72", "sharing what is no regular file, or does not hold still", "refused with the reason",
        &["peer/tests/bad_inputs/paths.rs::what_is_no_regular_file_is_refused_at_once",
          "peer/tests/bad_inputs/paths.rs::what_may_not_be_read_is_refused",
          "peer/tests/bad_inputs/paths.rs::a_file_that_grows_while_it_is_hashed_is_refused",
          "peer/tests/bad_inputs/paths.rs::what_is_not_the_published_content_is_not_shared"]),
    line("B73", "a piece of equal SHA-1 and other bytes", "dropped and blamed, never written",
        &["peer/tests/bad_inputs/hostile_sources.rs::a_piece_of_equal_sha1_is_not_taken_for_the_piece",
          "proto/src/domain/manifest.rs::a_piece_counts_only_when_both_digests_hold"]),
    line("B74", "one user with many peers", "shares by user",
        &["peer/tests/engine/swarm.rs::a_user_with_eight_peers_gets_about_as_much_as_one_with_one",
          "peer/src/domain/upload/tests.rs::turns_go_round_by_user",
          "peer/src/domain/upload/tests.rs::a_full_queue_refuses_but_no_user_fills_it_alone"]),
];

/// Kinds that can't occur; the table says why where they would stand.
const NOT_APPLICABLE: &[u32] = &[63];

#[test]
fn every_kind_has_a_line() {
    let numbers: Vec<u32> = LINES.iter().map(|line| line.id[1..].parse().unwrap()).collect();
    let expected: Vec<u32> = (1..=74).filter(|number| !NOT_APPLICABLE.contains(number)).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn every_proof_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let here = root.join("tracker-svc/tests/bad_inputs");
    let mut files = HashMap::new();
    let mut missing = Vec::new();
    for line in LINES {
        assert!(!line.proofs.is_empty(), "{}: {} must come to: {}", line.id, line.input, line.outcome);
        for proof in line.proofs {
            let (file, function) = proof.split_once("::").unwrap();
            let path = if file.contains('/') { root.join(file) } else { here.join(file) };
            let text =
                files.entry(path.clone()).or_insert_with(|| fs::read_to_string(&path).unwrap_or_default());
            if !is_test(text, function) {
                missing.push(format!("{}: {proof}", line.id));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

/// Whether the text has a test function of that name.
fn is_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let found = lines.iter().position(|line| {
        line.strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")
            .is_some_and(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with('(')))
    });
    found.is_some_and(|at| {
        lines[at.saturating_sub(3)..at].iter().any(|line| line.starts_with("#[") && line.contains("test"))
    })
}
