/**
 * Who a process in an image is: docker's USER, looked up in the image's own files.
 * Spec: passwd(5), group(5); OCI Image Specification, "User": user, uid, user:group, uid:gid, uid:group, user:gid.
 */
import { HypolithError } from "../../../src/base/errors.ts";

export interface UserFiles {
  /** The content of /etc/passwd and /etc/group; empty if there is none. */
  readonly passwd: string;
  readonly group: string;
}

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  /** Its name, if it has supplementary groups to be looked up by. */
  readonly groupsOf: string | undefined;
  readonly home: string;
}

const LARGEST_ID = 2 ** 32 - 2;

export function resolveUser(spec: string, files: UserFiles): ProcessUser {
  const colon = spec.indexOf(":");
  const who = colon < 0 ? spec : spec.slice(0, colon);
  const group = colon < 0 ? "" : spec.slice(colon + 1);
  const record = findUser(who || "0", files.passwd);
  const uid = record?.uid ?? idOf(who || "0");
  if (uid === undefined) {
    throw new HypolithError("user-unknown", `the image has no user '${who}'`, {
      hint: "name one of its /etc/passwd, or a number",
    });
  }
  const gid = group === "" ? (record?.gid ?? 0) : findGroup(group, files.group);
  if (gid === undefined) {
    throw new HypolithError("group-unknown", `the image has no group '${group}'`, {
      hint: "name one of its /etc/group, or a number",
    });
  }
  const isMember = record !== undefined && isInGroups(record.name, gid, files.group);
  return {
    uid,
    gid,
    groupsOf: group === "" && isMember ? record.name : undefined,
    home: record?.home || "/",
  };
}

interface UserRecord {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** By name first: a user may be named with digits only. */
function findUser(who: string, passwd: string): UserRecord | undefined {
  const records = passwd.split("\n").flatMap((line): UserRecord[] => {
    const [name = "", , uid = "", gid = "", , home = ""] = line.split(":");
    const ids = [idOf(uid), idOf(gid)];
    if (name === "" || ids[0] === undefined || ids[1] === undefined) return [];
    return [{ name, uid: ids[0], gid: ids[1], home }];
  });
  const id = idOf(who);
  return records.find(({ name }) => name === who) ?? records.find(({ uid }) => uid === id);
}

function findGroup(group: string, content: string): number | undefined {
  for (const [name, , gid = ""] of lines(content)) {
    if (name === group && idOf(gid) !== undefined) return idOf(gid);
  }
  return idOf(group);
}

function isInGroups(user: string, gid: number, content: string): boolean {
  return lines(content).some(([, , id = "", members = ""]) => {
    return idOf(id) !== gid && members.split(",").includes(user);
  });
}

function lines(content: string): string[][] {
  return content.split("\n").map((line) => line.split(":"));
}

function idOf(text: string): number | undefined {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  return value <= LARGEST_ID ? value : undefined;
}
