/** What the exit codes of `hypo` mean; a job's own code passes through unchanged. 126 and 127 are the guest's, as a shell's. */
export const ExitCode = {
  OK: 0,
  /** A check of `hypo doctor` failed. */
  CHECK_FAILED: 1,
  /** The command line cannot be understood. */
  USAGE: 2,
  /** The run could not be started, or ended before the job did. */
  FAILED: 125,
  /** 128 + SIGPIPE: nobody reads our output. */
  BROKEN_PIPE: 141,
} as const;
