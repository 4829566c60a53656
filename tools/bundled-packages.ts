/**
 * Packages whose code is part of what we publish although nobody has to install them: bundle-web.ts puts them into the page. They are
 * development dependencies, and licences are asked of them as of runtime packages.
 */
export const BUNDLED_PACKAGES: readonly string[] = ["@xterm/addon-fit", "@xterm/xterm"];
