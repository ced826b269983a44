# bash completion for ntsclient(8)

_ntsclient() {
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} word command='' flags=''
	COMPREPLY=()
	case $before in
	-c | --config | --ca)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--log-level)
		mapfile -t COMPREPLY < <(compgen -W 'debug info warn error' -- "$current")
		return
		;;
	--samples | --timeout | --proxy | --wait | --random-delay | --max-step) return ;;
	esac
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $word in query | sync | run | status | check)
			command=$word
			break
			;;
		esac
	done
	case $command in
	query) flags='--json --samples --timeout --ca --proxy -4 -6' ;;
	sync) flags='--json --dry-run --quiet -q --wait --random-delay --max-step --proxy' ;;
	run) flags='--dry-run' ;;
	status) flags='--json --prometheus --wait' ;;
	check) flags='--json --offline' ;;
	esac
	if [[ $current == -* ]]; then
		flags+=' --config -c --log-level --help -h --version -V'
		mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
	elif [[ -z $command ]]; then
		mapfile -t COMPREPLY < <(compgen -W 'query sync run status check' -- "$current")
	elif [[ $command == query ]]; then
		mapfile -t COMPREPLY < <(compgen -A hostname -- "$current")
	fi
}

complete -F _ntsclient ntsclient
