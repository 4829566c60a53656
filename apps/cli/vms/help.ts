/** Examples of the verbs about machines. */
export const EXAMPLES = {
  ps: `
Examples:
  hypo ps                    what is running
  hypo ps -a                 also what has ended and is kept, and what has died
  hypo ps -q                 names alone
  hypo ps --json             the same for programs`,
  logs: `
Examples:
  hypo logs web              what it has written; standard error apart, as it was
  hypo logs -f --tail 10 web the last lines, and what comes, until it ends or Ctrl-C
  hypo logs -t web           with the time of each line

Machines in the background and those with a name keep their output: the last 8 to 16 MiB of it.`,
  attach: `
Examples:
  hypo attach web            its terminal, or the streams of its command; Ctrl-P Ctrl-Q leaves it running
  hypo attach --detach-keys ctrl-x,x web

Exit status: that of the machine, if it ends meanwhile. Without a terminal, signals are passed on.`,
  stop: `
Examples:
  hypo stop web              its command gets SIGTERM, or its system is shut down; after 10 s it is turned off
  hypo stop -t 60 web db     a minute for each; 0: turn off at once

A kernel of your own, without a command of ours, feels its power button.`,
  kill: `
Examples:
  hypo kill web              turned off at once; its exit status is 137
  hypo kill -s HUP web       a signal for its command`,
  rm: `
Examples:
  hypo rm web                forget a machine that has ended: its exit status, its log
  hypo rm -f web             end it first, if it runs`,
  inspect: `
Examples:
  hypo inspect web           all that is known of it, JSON`,
  stats: `
Examples:
  hypo stats                 processor time and memory of all that runs, every second until Ctrl-C
  hypo stats --no-stream web once
  hypo stats --no-stream --json`,
  wait: `
Examples:
  hypo wait web              until it has ended; prints its exit status`,
  pause: `
Examples:
  hypo pause web             it executes nothing and its time stands still, until hypo unpause web`,
  unpause: `
Examples:
  hypo unpause web           it goes on where it was`,
  exec: `
Examples:
  hypo exec web ls -l /      a command in a machine that runs; its streams and exit status are yours
  hypo exec -it web sh       with a terminal
  hypo exec -u nobody -w /tmp -e A=1 web env
  tar c src | hypo exec -i web tar x -C /tmp
  hypo exec -d web httpd     start it and do not wait for it

Exit status: that of the command; 126 or 127 if it cannot be started, 125 if there is no such machine.`,
  cp: `
Examples:
  hypo cp web:/etc/passwd .            a file out of a machine
  hypo cp page.html web:/var/www/      a file into it
  hypo cp src web:/root                a folder, with all that is in it
  hypo cp web:/var/log/. logs          what is in a folder, not the folder
  hypo cp web:/etc - | tar t           as a tar stream; also into it: tar c src | hypo cp - web:/root`,
  trace: `
Examples:
  hypo trace syscalls web              every system call, as strace writes them; no agent in the guest, until Ctrl-C
  hypo trace syscalls web -e openat,execve -p nginx
  hypo trace -c syscalls web           counts, errors and times
  hypo trace syscalls web -o web.json  open it at https://ui.perfetto.dev
  hypo trace -n 5 exits web            the next five VM exits
  hypo trace interrupts web            every interrupt and exception that the guest is given by us
  hypo trace transitions web           every change between user and kernel

Times are the guest's. Processes have names and numbers if the guest's kernel describes its types (BTF), as Debian's does.`,
  completion: `
Examples:
  source <(hypo completion bash)       in ~/.bashrc
  hypo completion zsh >~/.zfunc/_hypo  in a folder of fpath
  hypo completion fish >~/.config/fish/completions/hypo.fish`,
} as const;
