/** Errors as the Linux guest knows them: both protocols carry these numbers. Source: Linux, include/uapi/asm-generic/errno.h. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  EACCES: 13,
  EEXIST: 17,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EFBIG: 27,
  EROFS: 30,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ESTALE: 116,
} as const;

/** A refusal that the guest is told by its number. */
export class FolderError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.name = "FolderError";
    this.errno = errno;
  }
}

/** What a guest is told of a failure: one that is no answer of the folder's is an I/O error. */
export function errnoOf(error: unknown): number {
  return error instanceof FolderError ? error.errno : Errno.EIO;
}
