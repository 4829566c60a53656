/** Change it when the same layers give another root file system: stored ones are then made anew. */
export const ROOT_FORMAT = "erofs-1";
