#compdef peer
# Completion of `peer` for zsh. Source this file after `compinit`, or put it into a directory of `fpath` as _peer.
_peer() {
    local program=${(Q)words[1]} candidate
    [[ $program == '~/'* ]] && program=$HOME/${program:2}
    local -a found directories others
    found=("${(@f)$(
        COMPLETE=zsh _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((CURRENT - 1)) \
            "$program" -- "${words[@]}" 2>/dev/null
    )}")
    for candidate in $found; do
        if [[ $candidate == */ ]]; then
            directories+=("${candidate%/}")
        else
            others+=("$candidate")
        fi
    done
    [[ -n $directories ]] && _describe -V 'values' directories -S '/' -r '/'
    [[ -n $others ]] && _describe -V 'values' others
}
if [[ $funcstack[1] == _peer ]]; then
    _peer "$@"
else
    compdef _peer peer
fi
