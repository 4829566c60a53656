/** Completion for shells, made from the command table: verbs, options, values that are fixed, and names of machines, which hypo is asked for. */
import type { Command, Option } from "commander";
import { TRACE_KINDS } from "../../../src/control/protocol.ts";
import type { ShellName } from "./commands.ts";

export interface OptionRow {
  /** "-a", "--all" */
  readonly words: readonly string[];
  readonly description: string;
  readonly takesValue: boolean;
  /** Of the value; empty if it may be anything. */
  readonly choices: readonly string[];
}

export interface VerbRow {
  readonly name: string;
  readonly description: string;
  readonly options: readonly OptionRow[];
  /** What stands behind it. */
  readonly operands: "none" | "machines" | "machine" | "files" | "verbs" | readonly string[];
}

export type CommandTable = readonly VerbRow[];

const OPERANDS: Readonly<Record<string, VerbRow["operands"]>> = {
  ...{ logs: "machine", attach: "machine", exec: "machine", services: "machine" },
  ...{ stop: "machines", kill: "machines", rm: "machines", inspect: "machines" },
  ...{ stats: "machines", wait: "machines", pause: "machines", unpause: "machines" },
  ...{ cp: "files", help: "verbs", trace: TRACE_KINDS },
};

export function commandTable(program: Command): CommandTable {
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.description(),
    options: command.options.filter(({ hidden }) => !hidden).map(optionRow),
    operands:
      OPERANDS[command.name()] ?? command.registeredArguments[0]?.argChoices ?? ("none" as const),
  }));
}

function optionRow({ short, long, description, required, argChoices }: Option): OptionRow {
  return {
    words: [short, long].filter((word) => word != null),
    description,
    takesValue: required,
    choices: argChoices ?? [],
  };
}

export function completionScript(shell: ShellName, table: CommandTable): string {
  if (shell === "bash") return bash(table);
  return shell === "zsh" ? zsh(table) : fish(table);
}

const MACHINES = "hypo ps -aq 2>/dev/null";

function bash(table: CommandTable): string {
  const cases = table.map(({ name, options, operands }) => {
    const words = options.flatMap((option) => option.words).join(" ");
    const values = options
      .filter(({ takesValue }) => takesValue)
      .map(
        ({ words: [...names], choices }) =>
          `        ${names.join("|")}) ${choices.length > 0 ? `_hypo_words "${choices.join(" ")}"` : 'COMPREPLY=($(compgen -f -- "$cur"))'}; return ;;\n`,
      );
    return `    ${name})
      case $prev in
${values.join("")}      esac
      if [[ $cur == -* ]]; then _hypo_words "${words}"; else ${bashOperands(operands, table)}; fi ;;
`;
  });
  return `# Completion of hypo for bash. Made by: hypo completion bash
_hypo_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_hypo() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then _hypo_words "${table.map(({ name }) => name).join(" ")}"; return; fi
  case \${COMP_WORDS[1]} in
${cases.join("")}  esac
}
complete -o default -F _hypo hypo
`;
}

function bashOperands(operands: VerbRow["operands"], table: CommandTable): string {
  if (operands === "machines" || operands === "machine") return `_hypo_words "$(${MACHINES})"`;
  if (operands === "files")
    return `COMPREPLY=($(compgen -f -W "$(${MACHINES} | sed s/$/:/)" -- "$cur"))`;
  if (operands === "verbs") return `_hypo_words "${table.map(({ name }) => name).join(" ")}"`;
  return operands === "none" ? ":" : `_hypo_words "${operands.join(" ")}"`;
}

function zsh(table: CommandTable): string {
  const verbs = table.map(({ name, description }) => `    ${word(`${name}:${description}`)}`);
  const cases = table.map(({ name, options, operands }) => {
    const rows = options.flatMap(({ words, description, takesValue, choices }) => {
      const value = takesValue
        ? choices.length > 0
          ? `:value:(${choices.join(" ")})`
          : ":value:_files"
        : "";
      const text = description.replaceAll(/[[\]:\\]/g, "\\$&");
      return words.map((name) => `      ${word(`*${name}[${text}]${value}`)}`);
    });
    return `    ${name}) _arguments -S ${[...rows, `      ${zshOperands(operands)}`].join(" \\\n")} ;;\n`;
  });
  return `#compdef hypo
# Completion of hypo for zsh. Made by: hypo completion zsh
_hypo_machines() { local -a names; names=(\${(f)"$(${MACHINES})"}); compadd -a names }
_hypo_paths() { local -a names; names=(\${(f)"$(${MACHINES})"}); compadd -S : -a names; _files }
_hypo_verbs() {
  local -a verbs
  verbs=(
${verbs.join("\n")}
  )
  _describe verb verbs
}
_hypo() {
  if ((CURRENT == 2)); then _hypo_verbs; return; fi
  local verb=$words[2]
  shift words
  ((CURRENT--))
  case $verb in
${cases.join("")}  esac
}
if [[ $funcstack[1] == _hypo ]]; then _hypo "$@"; else compdef _hypo hypo; fi
`;
}

function zshOperands(operands: VerbRow["operands"]): string {
  if (operands === "machines" || operands === "machine") return "'*:machine:_hypo_machines'";
  if (operands === "files") return "'*:path:_hypo_paths'";
  if (operands === "verbs") return "'1:verb:_hypo_verbs'";
  return operands === "none" ? "'*:file:_files'" : `'1:word:(${operands.join(" ")})'`;
}

function fish(table: CommandTable): string {
  const names = table.map(({ name }) => name).join(" ");
  const lines = [
    "# Completion of hypo for fish. Made by: hypo completion fish",
    "complete -c hypo -f",
    ...table.map(
      ({ name, description }) =>
        `complete -c hypo -n "not __fish_seen_subcommand_from ${names}" -a ${name} -d ${word(description)}`,
    ),
  ];
  for (const { name, options, operands } of table) {
    const when = `complete -c hypo -n "__fish_seen_subcommand_from ${name}"`;
    for (const { words, description, takesValue, choices } of options) {
      const flags = words.map((flag) =>
        flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
      );
      const value = takesValue
        ? choices.length > 0
          ? ` -xa ${word(choices.join(" "))}`
          : " -rF"
        : "";
      lines.push(`${when} ${flags.join(" ")}${value} -d ${word(description)}`);
    }
    if (operands === "machines" || operands === "machine") lines.push(`${when} -a "(${MACHINES})"`);
    else if (operands === "files") lines.push(`${when} -F -a "(${MACHINES}):"`);
    else if (operands === "verbs") lines.push(`${when} -a "${names}"`);
    else if (operands !== "none") lines.push(`${when} -a "${operands.join(" ")}"`);
  }
  return `${lines.join("\n")}\n`;
}

/** One word of any of the three. */
function word(text: string): string {
  return `'${text.replaceAll("'", "’")}'`;
}
