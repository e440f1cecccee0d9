# Completion of `peer` for fish. Source this file, or put it here: ~/.config/fish/completions/peer.fish
function __peer_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l program (string replace --regex -- '^~/' "$HOME/" $words[1])
    COMPLETE=fish $program -- $words (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --keep-order --exclusive --command peer --arguments '(__peer_complete)'
