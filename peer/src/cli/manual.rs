//! What the manual page says besides the verbs and their flags.

use program::man::Extra;

/// The sections of the manual page that the flags do not give.
pub(super) const EXTRA: Extra = Extra {
    exit_status: &[
        ("0", "Done."),
        ("1", "None of the others, output that can't be written included."),
        ("2", "The command line, a setting or a value is wrong."),
        ("3", "Not found."),
        ("4", "Nobody is logged in, or the password is wrong."),
        ("5", "Permission denied; also any group that you are not a member of, whether it exists or not."),
        ("6", "It exists already, or something is in the way."),
        ("7", "The tracker can't be reached, or its CA is not known."),
        ("8", "No source of the file."),
        ("9", "The disk is full."),
        ("10", "No daemon runs and none may be started, or the one that runs does not answer or ended."),
        ("11", "Bytes are not what they must be."),
        ("12", "Cancelled."),
        ("13", "A quota or a rate limit."),
        ("124", "The time limit is over; the daemon goes on with a download."),
        ("130", "Interrupted by Ctrl-C."),
    ],
    environment: &[
        ("PEER_PASSWORD_FILE", "A file with the password in its first line"),
        (
            "PEER_TOKEN_FILE",
            "A file with a machine's token in its first line, for `peer login` without a user",
        ),
        ("COMPLETE", "Set by the completion script of a shell: complete the line instead of running it"),
        ("NO_COLOR", "If set, no colours are used"),
        ("XDG_RUNTIME_DIR", "Where the socket of a home with a long path is"),
    ],
    files: &[
        ("config.toml", "In the home or the XDG configuration directory: the settings, named as the flags"),
        ("session.json", "In the home: the session of the user who is logged in"),
        ("users/USER/", "In the home: the key, the certificate, and the shares and downloads of a user"),
        ("run/daemon.sock", "In the home: the socket of the daemon"),
        ("daemon.log", "In the home: the log of a daemon that a verb started"),
        (".minitorrent/", "Beside a download's destination: its unfinished data, until it is complete"),
    ],
    examples: "peer create-user alice\n\
               peer login alice\n\
               peer create-group g1\n\
               peer upload movie.mp4 g1\n\
               peer download g1 movie.mp4 ./out/\n\
               peer show-downloads --follow\n\
               peer verify g1 movie.mp4",
};
