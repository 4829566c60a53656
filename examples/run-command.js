// One command in a fresh machine, and what it said.
import { Machine } from "hypolith";

await using machine = await Machine.create({ command: ["uname", "-srm"] });
await machine.start();
for await (const part of machine.stdout) process.stdout.write(part);
process.exitCode = (await machine.ended).exitCode;
