/** The part of cli-progress that is used here; the package brings no types. */
declare module "cli-progress" {
  interface Options {
    readonly format?: string;
    readonly stream?: NodeJS.WritableStream;
    readonly barCompleteChar?: string;
    readonly barIncompleteChar?: string;
    readonly hideCursor?: boolean;
    readonly clearOnComplete?: boolean;
    readonly gracefulExit?: boolean;
  }
  class SingleBar {
    constructor(options: Options);
    start(total: number, startValue: number, payload?: object): void;
    update(value: number): void;
    stop(): void;
  }
  const cliProgress: { readonly SingleBar: typeof SingleBar };
  export default cliProgress;
}
