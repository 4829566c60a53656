/**
 * The long part of what `hypo help` prints: examples for every verb.
 */
import { FLAVORS } from "./image/flavors.ts";

export const TOP_EXAMPLES = `
Examples:
  hypo run                            a root shell: Debian's kernel with BusyBox
  hypo run debian                     a whole Debian
  hypo run -- uname -srm              one command in a fresh machine
  hypo help run                       all options of a verb, with examples
  hypo web                            the same in a browser
  hypo run -d --name box              a machine in the background
  hypo exec -it box sh                a shell in it; hypo cp copies files, hypo stop ends it
  hypo ps                             what is running
  hypo run alpine                     an image of a registry; hypo images lists what has been pulled
  hypo doctor                         what works on this machine

Environment: HYPO_HOME (where hypo keeps its files), HYPO_DEBIAN_MIRROR, NO_COLOR.
Exit status: that of the command in the guest; 2 if the command line is wrong, 125 if the run
failed, 126 and 127 if the command cannot be started in the guest, 128+N if signal N stopped it.`;

export const RUN_EXAMPLES = `
Images:
  debian               Debian's stable release, made of its packages: apt-get install works in it
  debian:SUITE         another one: trixie, bookworm, testing, sid
${FLAVORS.map(({ image, short, description }) => `  ${image.padEnd(20)} --flavor ${short.padEnd(9)} ${description}, with BusyBox`).join("\n")}
                       without an image, the first of these
  ./FOLDER FILE.tar    an OCI layout, or what docker save wrote; also oci:PATH:NAME, docker-archive:PATH:NAME
  all other names      images of registries, as docker has them: alpine, debian:12-slim, localhost:5000/app.
                       They bring files and a command; kernel and init are ours

Examples:
  hypo run                                        a root shell; 'poweroff' or Ctrl-A X ends it
  hypo run -- sh -c 'exit 7'; echo $?             the exit code of the command: 7
  hypo run --quiet -- uname -srm                  nothing but the command's own output
  tar c src | hypo run -- tar tv                  standard input and output are the command's
  hypo run -t -- vi                               a command with a terminal
  hypo run debian                                 a Debian: bash, apt; made at the first start, which takes minutes
  hypo run debian:bookworm -- cat /etc/debian_version
  hypo run debian:686-pae                         another kernel
  hypo run alpine                                 an image of a registry: its own command
  hypo run alpine -- cat /etc/os-release          another command in it
  hypo run --platform linux/386 alpine            for 32-bit programs
  hypo run ./layout                               an OCI layout; also archives: hypo run saved.tar
  hypo run --memory 1g --append 'maxcpus=1'       more memory, more for the kernel's command line
  hypo run --kernel bzImage --initrd root.cpio    a machine of your own
  hypo run --initrd root.cpio -- python3 -V       a command in a root file system of your own
  hypo run --clock deterministic --trace exits=exits.log -- true
                                                  the same run, to the instruction, every time
  hypo run --disk debian.qcow2 -- fdisk -l /dev/vda
                                                  an image as a disk; what is written to it is forgotten
  hypo run --disk debian.img,overlay=mine.qcow2   what is written to it is kept beside it
  hypo run -v ./src:/src -w /src -- ls            a folder of this machine in the guest; ':ro' to look at only
  hypo run -p 8080:80 -- httpd -f -p 80 -h /etc   the guest's web server at http://127.0.0.1:8080
  hypo run --egress deb.debian.org:80 -- nslookup deb.debian.org
                                                  no other place can be reached, nor asked for
  hypo run --pcap frames.pcapng -- ping -c 1 10.0.2.2
                                                  all frames of its network, for Wireshark
  hypo run --nested -- ls -l /dev/kvm
                                                  the guest may use KVM
  hypo run --service all=worker                   device models in threads of their own
  hypo run -d --name web -p 8080:80 -- httpd -f -p 80 -h /etc
                                                  in the background; hypo logs, exec, cp, stop web
  hypo run -u nobody -w /tmp -e A=1 -- env        another user, folder and environment
  hypo run -- cat /proc/kallsyms >kallsyms        names of the kernel's code, for the next line
  hypo run --profile p.json --symbols kallsyms -- gzip -k /bin/busybox
                                                  where instructions go; look at it in speedscope.app`;

export const SERVICES_EXAMPLES = `
Examples:
  hypo services              of the only machine that is running
  hypo services vm-4711      of this one; hypo ps says the names
  hypo services --json       the same for programs`;

export const SERVICE_EXAMPLES = `
Examples:
  hypo service kill console        its program is gone; with its next message another one goes on
  hypo service hang console        it does not answer any more; for services in threads of their own
  hypo service lose-reply timers   gone between having done a message and its answer
  hypo service restart pci         ended in order and started again

The guest must not notice any of it. hypo services shows the restarts and the longest stall.`;

export const WEB_EXAMPLES = `
Examples:
  hypo web                        the page with Debian, at http://127.0.0.1:8080/ until Ctrl-C
  hypo web --port 0 debian:rt-amd64
                                  another image, at any free port; the address is printed
  hypo web --export public        a folder for a web server of your own, GitHub Pages or the like

Words of the page's address: start (boot at once), kernel=URL, initrd=URL, append=TEXT, memory=SIZE,
cpu=MODEL, engine=NAME, image=URL.`;

export const DOCTOR_EXAMPLES = `
Examples:
  hypo doctor                one line a check; exit status 1 if something must be cured first
  hypo doctor --json         the same for programs`;

export const HELP_EXAMPLES = `
Examples:
  hypo help                  all verbs
  hypo help run              one verb`;

export const VERSION_EXAMPLES = `
Examples:
  hypo version               the same as hypo --version`;
