/** A verb of the command table (program.ts) whose usage names its arguments, with its examples after the help. */
import type { Command } from "commander";

export type VerbMaker<Name extends string> = (
  to: Command,
  name: Name,
  description: string,
  usage: string,
) => Command;

export function verbMaker<Name extends string>(
  examples: Readonly<Record<Name, string>>,
): VerbMaker<Name> {
  return (to, name, description, usage) => {
    const command = to.command(name).description(description).usage(usage);
    command.configureHelp({ visibleArguments: () => [] });
    return command.addHelpText("after", examples[name]);
  };
}
