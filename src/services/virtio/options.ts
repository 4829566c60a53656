/** What one virtio service is told: plain data of the machine's configuration. */

/** The end of the device that is not the guest's: a kind of device, and the stream of the embedder that serves it. */
export type VirtioDeviceOptions =
  | {
      readonly kind: "block";
      readonly stream: number;
      /** bytes */
      readonly size: number;
      readonly readOnly: boolean;
      readonly serial: string;
    }
  | { readonly kind: "entropy"; readonly stream: number }
  /** `cid`: the guest's context, 3 or more */
  | { readonly kind: "socket"; readonly stream: number; readonly cid: number }
  | { readonly kind: "balloon"; readonly stream: number }
  /** A console without negotiated size, one port. */
  | { readonly kind: "console"; readonly stream: number }
  /** A shared folder: "fs" speaks FUSE, "9p" 9P2000.L. `tag`: what the guest mounts it by. */
  | {
      readonly kind: "files";
      readonly stream: number;
      readonly protocol: "fs" | "9p";
      readonly tag: string;
    }
  | {
      readonly kind: "network";
      readonly stream: number;
      /** six bytes; options travel as JSON */
      readonly mac: readonly number[];
      readonly mtu?: number;
    };

export interface VirtioServiceOptions {
  readonly device: VirtioDeviceOptions;
  /** Global system interrupt of the function's INTA#. */
  readonly gsi: number;
}
