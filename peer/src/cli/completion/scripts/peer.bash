# Completion of `peer` for bash. Source this file, or put it where bash-completion looks for it:
# ~/.local/share/bash-completion/completions/peer
_peer_complete() {
    local program=$1
    [[ $program == '~/'* ]] && program=$HOME/${program:2}
    COMPREPLY=()
    local candidate
    while IFS= read -r -d $'\v' candidate; do
        COMPREPLY+=("$candidate")
    done < <(
        COMPLETE=bash _CLAP_IFS=$'\v' _CLAP_COMPLETE_INDEX=$COMP_CWORD \
            "$program" -- "${COMP_WORDS[@]}" 2>/dev/null && printf '\v'
    )
    # Nothing found is one empty line.
    [[ ${#COMPREPLY[@]} -eq 1 && -z ${COMPREPLY[0]} ]] && COMPREPLY=()
    # More follows after a directory and after the `=` of a flag.
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]] && compopt -o nospace
    return 0
}
complete -o bashdefault -o nosort -F _peer_complete peer
