/** What a hypercall or a reply comes to. A refusal across privilege is a value, never an exception. */
export const Status = {
  OK: 0,
  /** No capability for it. */
  DENIED: 1,
  /** An argument out of range. */
  INVALID: 2,
  /** The object does not exist (any more). */
  GONE: 3,
  /** A limit of the caller is used up. */
  LIMIT: 4,
  /** A service does not handle this event: the route's default applies. */
  UNHANDLED: 5,
  /** Of a reply: the same event goes to the portal of the service's forward list that `stream` names, with `argument`. */
  FORWARD: 6,
} as const;
export type Status = (typeof Status)[keyof typeof Status];
