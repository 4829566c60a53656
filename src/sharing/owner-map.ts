/**
 * Who owns what, on both sides. An embedder that is root acts for anybody, and ids are the same. Any other is one user: what is that user's
 * belongs in the guest to the one the folder was given to, and nobody else's id is taken for that one's.
 */

/** Ids of a user and its group. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** nobody, as user namespaces show ids that have no counterpart */
const OVERFLOW = 65534;

export class OwnerMap {
  /** Files can be given to others. */
  readonly isPrivileged: boolean;
  readonly #host: Owner;
  readonly #guest: Owner;

  constructor(host: Owner, guest: Owner) {
    this.#host = host;
    this.#guest = guest;
    this.isPrivileged = host.uid === 0;
  }

  guestUid(host: number): number {
    return this.#seen(host, this.#host.uid, this.#guest.uid);
  }

  guestGid(host: number): number {
    return this.#seen(host, this.#host.gid, this.#guest.gid);
  }

  hostUid(guest: number): number {
    return !this.isPrivileged && guest === this.#guest.uid ? this.#host.uid : guest;
  }

  hostGid(guest: number): number {
    return !this.isPrivileged && guest === this.#guest.gid ? this.#host.gid : guest;
  }

  #seen(id: number, ours: number, theirs: number): number {
    if (this.isPrivileged) return id;
    if (id === ours) return theirs;
    return id === theirs ? OVERFLOW : id;
  }
}
