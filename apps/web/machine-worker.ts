/**
 * The page's second script: the machine, in a worker; and, in a worker of that worker's, the compiler of its hot code. The only file of
 * the page's that names them.
 */
import {
  type CompilerScope,
  type CompilerWorker,
  serveCompiler,
} from "../../src/machine/embedder-browser-compiler.ts";
import { serve, type WorkerScope } from "../../src/machine/embedder-browser-worker.ts";

/** What is used of DedicatedWorkerGlobalScope. */
interface Scope extends WorkerScope {
  readonly name?: string;
  readonly location: { readonly href: string };
  /** Not every browser lets a worker have workers. */
  readonly Worker?: new (
    url: string,
    options: { type: "module"; name: string },
  ) => CompilerWorker;
}

const COMPILER = "compiler";

const scope = globalThis as unknown as Scope;
if (scope.name === COMPILER) serveCompiler(scope as unknown as CompilerScope);
else {
  const { Worker } = scope;
  const spawnCompiler =
    Worker && (() => new Worker(scope.location.href, { type: "module", name: COMPILER }));
  serve(scope, { spawnCompiler });
}
