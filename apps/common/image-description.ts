/** The JSON file that describes an image to the page (see apps/web/served-image.ts). Addresses are relative to the file's own. */
export interface ImageDescription {
  /** For people: "Debian, Linux 6.1.0-56-cloud-amd64". */
  readonly title?: string;
  readonly kernel: string;
  readonly initrd?: string;
  /** For the kernel's command line, besides the console. */
  readonly append?: string;
  /** The initrd is ours: its session listens to the control line. */
  readonly session?: boolean;
}
