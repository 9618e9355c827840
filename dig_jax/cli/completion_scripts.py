"""Scripts that complete a command line in a shell, to be filled with its words.

Braces are doubled for `str.format`.
"""

BASH = """\
# Completion of dig_jax for bash, printed by `dig_jax completion bash`.
_dig_jax() {{
    local before=${{COMP_LINE:0:COMP_POINT}} name="" word
    local current=${{before##*[[:space:]]}} words=() found=()
    COMPREPLY=()
    if [[ $current == --*=* ]]; then
        name=${{current%%=*}}
        case $name in
{values}
        esac
        case $name in
            {files})
                mapfile -t found < <(compgen -f -- "${{current#*=}}")
                # Of files alone: it would put a backslash before the : of others.
                [[ ${{#found[@]}} -gt 0 ]] && compopt -o filenames 2> /dev/null ;;
        esac
    elif [[ $current == --config.*.* ]]; then
        words=({keys})
    elif [[ $current == --config.* ]]; then
        words=({sections})
    elif [[ $current == -* ]]; then
        words=({flags})
    elif (( COMP_CWORD == 1 )); then
        words=({commands} {flags})
    else
        case ${{COMP_WORDS[1]}} in
{after}
            *) words=({flags}) ;;
        esac
    fi
    current=${{current#"$name="}}
    for word in "${{words[@]}}"; do
        [[ $word == "$current"* ]] && found+=("$word")
    done
    # Readline replaces what stands behind the last = or :, where these part words.
    [[ $name && $COMP_WORDBREAKS != *=* ]] && found=("${{found[@]/#/$name=}}")
    if [[ $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        found=("${{found[@]#"${{current%"${{current##*:}}"}}"}}")
    fi
    COMPREPLY=("${{found[@]}}")
    if [[ ${{#found[@]}} -eq 1 && ${{found[0]}} == *[=.] ]]; then
        compopt -o nospace 2> /dev/null
    fi
    return 0
}}
complete -F _dig_jax dig_jax"""

ZSH = """\
#compdef dig_jax
# Completion of dig_jax for zsh, printed by `dig_jax completion zsh`.
_dig_jax() {{
    local name=${{PREFIX%%=*}}
    if [[ $PREFIX == --*=* ]]; then
        compset -P '*='
        case $name in
{values}
        esac
        case $name in
            ({files}) _files ;;
        esac
    elif [[ $PREFIX == --config.*.* ]]; then
        compadd -S '' -- {keys}
    elif [[ $PREFIX == --config.* ]]; then
        compadd -S '' -- {sections}
    elif [[ $PREFIX == -* ]]; then
        compadd -S '' -- {flags}
    elif (( CURRENT == 2 )); then
        compadd -- {commands}
        compadd -S '' -- {flags}
    else
        case $words[2] in
{after}
            (*) compadd -S '' -- {flags} ;;
        esac
    fi
}}
if [[ $funcstack[1] == _dig_jax ]]; then
    _dig_jax "$@"
else
    compdef _dig_jax dig_jax
fi"""

FISH = """\
# Completion of dig_jax for fish, printed by `dig_jax completion fish`.
function __dig_jax_words
    set -l current (commandline -ct)
    set -l given (commandline -opc)
    switch $current
        case '--*=*'
            set -l name (string replace -r '=.*' '' -- $current)
            switch $name
{values}
            end
            if contains -- $name {files}
                set -l value (string replace -r '^[^=]*=' '' -- $current)
                for path in (__fish_complete_path $value | string replace -r '\\t.*' '')
                    echo $name=$path
                end
            end
        case '--config.*.*'
            printf %s\\n {keys}
        case '--config.*'
            printf %s\\n {sections}
        case '-*'
            printf %s\\n {flags}
        case '*'
            if test (count $given) -eq 1
                printf %s\\n {commands} {flags}
                return
            end
            switch $given[2]
{after}
                case '*'
                    printf %s\\n {flags}
            end
    end
end
complete -c dig_jax -f -a '(__dig_jax_words)'"""
