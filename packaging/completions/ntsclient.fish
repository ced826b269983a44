# fish completion for ntsclient(8)

complete -c ntsclient -f
complete -c ntsclient -s c -l config -r -F -d 'read this file'
complete -c ntsclient -l log-level -x -a 'debug info warn error' -d 'least level of messages'
complete -c ntsclient -s h -l help -d 'print the flags'
complete -c ntsclient -s V -l version -d 'print the version'

complete -c ntsclient -n __fish_use_subcommand -a query -d 'measure and print'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -l json -d 'print the report as JSON'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -l samples -x -d 'ask each server so many times'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -l timeout -x -d 'end the whole round after this time'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -l ca -r -F -d 'trust only these authorities'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -l proxy -x -d 'go through this SOCKS5 proxy'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -s 4 -d 'IPv4 only'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -s 6 -d 'IPv6 only'
complete -c ntsclient -n '__fish_seen_subcommand_from query' -a '(__fish_print_hostnames)'

complete -c ntsclient -n __fish_use_subcommand -a sync -d 'correct the clock once'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l json -d 'print the report as JSON'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l dry-run -d 'leave the clock alone'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -s q -l quiet -d 'print nothing unless it fails'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l wait -x -d 'keep trying until this time has passed'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l random-delay -x -d 'start after a random delay up to this'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l max-step -x -d 'allow corrections up to this'
complete -c ntsclient -n '__fish_seen_subcommand_from sync' -l proxy -x -d 'go through this SOCKS5 proxy'

complete -c ntsclient -n __fish_use_subcommand -a run -d 'keep the clock right'
complete -c ntsclient -n '__fish_seen_subcommand_from run' -l dry-run -d 'leave the clock alone'

complete -c ntsclient -n __fish_use_subcommand -a status -d 'say what is known'
complete -c ntsclient -n '__fish_seen_subcommand_from status' -l json -d 'print the report as JSON'
complete -c ntsclient -n '__fish_seen_subcommand_from status' -l prometheus -d 'print the report as metrics'
complete -c ntsclient -n '__fish_seen_subcommand_from status' -l wait -x -d 'return when synchronized, or fail'

complete -c ntsclient -n __fish_use_subcommand -a check -d 'say what would stop it'
complete -c ntsclient -n '__fish_seen_subcommand_from check' -l json -d 'print the findings as JSON'
complete -c ntsclient -n '__fish_seen_subcommand_from check' -l offline -d 'send nothing'
