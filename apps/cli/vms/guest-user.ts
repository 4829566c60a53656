/** Users by name, from the guest's own /etc/passwd and /etc/group, as docker takes them: a number need not be there. */
import { HypolithError } from "../../../src/base/errors.ts";

export interface GuestUser {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly name: string;
  readonly home: string;
}

/** `user`: NAME or UID, with ":GROUP" or without. Throws HypolithError "no-such-user". */
export function findUser(user: string, passwd: string, group: string): GuestUser {
  const [name = "", groupName] = user.split(":");
  const fields = rows(passwd).find(([login, , uid]) => login === name || uid === name);
  if (!fields && !isNumber(name)) throw absent("user", name);
  const [login = name, , uid = name, gid = "0", , home = ""] = fields ?? [];
  const groups = rows(group);
  if (groupName === undefined) {
    const more = groups.filter(([, , , members = ""]) => members.split(",").includes(login));
    return {
      ...{ uid: Number(uid), gid: Number(gid), name: login, home: home || "/" },
      groups: more.map(([, , number]) => Number(number)).filter(Number.isInteger),
    };
  }
  const found = groups.find(([title, , number]) => title === groupName || number === groupName);
  if (!found && !isNumber(groupName)) throw absent("group", groupName);
  const number = Number(found?.[2] ?? groupName);
  return { uid: Number(uid), gid: number, groups: [], name: login, home: home || "/" };
}

const rows = (text: string): string[][] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(":"));

const isNumber = (text: string): boolean => /^\d{1,10}$/.test(text);

function absent(what: string, name: string): HypolithError {
  return new HypolithError("no-such-user", `there is no ${what} ${name} in the guest`, {
    hint: `hypo exec VM cat /etc/${what === "user" ? "passwd" : "group"} lists them`,
  });
}
