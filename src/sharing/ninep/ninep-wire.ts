/** Numbers of 9P2000.L. Source: Linux, include/net/9p/9p.h; diod, "9P2000.L Protocol". A reply's type is its request's and one. */
export const NinepType = {
  LERROR: 7,
  STATFS: 8,
  LOPEN: 12,
  LCREATE: 14,
  SYMLINK: 16,
  MKNOD: 18,
  RENAME: 20,
  READLINK: 22,
  GETATTR: 24,
  SETATTR: 26,
  READDIR: 40,
  FSYNC: 50,
  LOCK: 52,
  GETLOCK: 54,
  LINK: 70,
  MKDIR: 72,
  RENAMEAT: 74,
  UNLINKAT: 76,
  VERSION: 100,
  ATTACH: 104,
  FLUSH: 108,
  WALK: 110,
  READ: 116,
  WRITE: 118,
  CLUNK: 120,
  REMOVE: 122,
} as const;

export const NINEP_VERSION = "9P2000.L";
/** size, type, tag */
export const NINEP_HEADER_BYTES = 7;
export const QID_BYTES = 13;
/** "mode" to "ctime" */
export const GETATTR_BASIC = 0x7ff;
export const MAX_WALK = 16;
export const AT_REMOVEDIR = 0x200;
export const F_UNLCK = 2;

export const QidType = { DIRECTORY: 0x80, SYMBOLIC_LINK: 0x02, FILE: 0 } as const;

export const NinepSetAttr = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_SET: 1 << 7,
  MTIME_SET: 1 << 8,
} as const;
