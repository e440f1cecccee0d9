//! Every spelling of every verb.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_spelling_is_taken() {
    let lines = [
        "peer daemon --listen 127.0.0.1:0 --advertise a:1 --advertise b --upload-limit 1K --download-limit 0 --metrics 127.0.0.1:0",
        "peer daemon stop",
        "peer create-user u",
        "peer create_user u",
        "peer change-password --password-stdin",
        "peer login u --password-stdin",
        "peer login --token-stdin",
        "peer login --new-key",
        "peer create-token t --group g --group h --allow share --expires 30d",
        "peer create_token t",
        "peer list-tokens",
        "peer list_tokens",
        "peer revoke-token t",
        "peer revoke_token t",
        "peer logout",
        "peer logout-all",
        "peer whoami",
        "peer status",
        "peer doctor",
        "peer create-group g",
        "peer create_group g",
        "peer list-groups --mine",
        "peer list_groups",
        "peer join-group g --wait",
        "peer join_group g",
        "peer leave-group g",
        "peer leave_group g",
        "peer list-requests g",
        "peer list_requests g",
        "peer requests list_requests g",
        "peer requests list-requests g",
        "peer accept-request g u",
        "peer accept_request g u",
        "peer reject-request g u",
        "peer reject_request g u",
        "peer list-members g",
        "peer remove-member g u",
        "peer transfer-group g u",
        "peer set-role g u manager",
        "peer set_role g u reader",
        "peer delete-group g",
        "peer invite g --uses 30 --expires 2d --file n --qr",
        "peer list-invites g",
        "peer list_invites g",
        "peer revoke-invite g 7",
        "peer revoke_invite g 7",
        "peer join minitorrent://t:1/g#f.s --user u --password-stdin",
        "peer get minitorrent://t:1/g/n#f.s d --user u",
        "peer get minitorrent://t:1/g/n#f.s",
        "peer list-files g",
        "peer list_files g",
        "peer list-files g n",
        "peer upload p g --name n",
        "peer upload_file p g",
        "peer upload p --name n g",
        "peer upload p q r g",
        "peer upload p g --replace",
        "peer share p g",
        "peer watch d g --existing --replace",
        "peer unpublish g n",
        "peer download g n d -d --sequential --verify",
        "peer download_file g n d",
        "peer show-downloads --follow",
        "peer show_downloads",
        "peer ui --listen 127.0.0.1:7780",
        "peer cat g n --offset 5 --length 7",
        "peer subscribe g d --match *.mp4 --match *.srt --existing --update",
        "peer subscribe g d --exec notify -x --all",
        "peer download g n d --exec notify -x --all",
        "peer list-subscriptions",
        "peer list_subscriptions",
        "peer unsubscribe g",
        "peer explain g n",
        "peer who g n --follow",
        "peer stop-download g n --discard",
        "peer stop_download g n",
        "peer resume-download g n",
        "peer download g n d --repair",
        "peer download g n d --only docs/ --only *.md",
        "peer download g n",
        "peer download g n m o d",
        "peer download g --all d",
        "peer download g --match *.mp4 --match *.srt d",
        "peer update g n --dry-run",
        "peer update g n -d",
        "peer clear-downloads",
        "peer clear_downloads",
        "peer list-shares",
        "peer stop-share g n",
        "peer stop_share g n",
        "peer stop-share g n --yes",
        "peer daemon stop --drain --copies 2 --timeout 60",
        "peer logout --yes",
        "peer leave-group g --drain",
        "peer stop-download g n --yes",
        "peer list-files g --at-risk --copies 3",
        "peer verify g n",
        "peer hash p",
        "peer limit --up 500K --down 1MiB",
        "peer export-cert d",
        "peer ticket g n",
        "peer shell",
        "peer completions bash",
        "peer man",
        "peer config show",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err().map(|error| error.to_string()));
    }
    for line in ["peer", "peer fly", "peer create-group", "peer create-group g h", "peer daemon now"] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn global_flags_stand_before_or_after_the_verb() {
    let all = "--home h --tracker https://t:1 --ca c --ca-sha256 f --json -q --no-autostart --timeout 5";
    for line in [format!("peer {all} list-groups"), format!("peer list-groups {all}")] {
        let global = parse(&line).expect("good").global;
        assert_eq!(global.home, Some("h".into()));
        assert_eq!(global.tracker.as_deref(), Some("https://t:1"));
        assert_eq!((global.ca.as_deref(), global.ca_sha256.as_deref()), (Some("c"), Some("f")));
        assert!(global.json && global.quiet && global.no_autostart);
        assert_eq!(global.timeout.as_deref(), Some("5"));
    }
}

#[test]
fn every_verb_has_an_example() {
    for verb in
        Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
    {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example: peer "), "{}", verb.get_name());
    }
}
