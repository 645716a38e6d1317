import { closeSync, fsyncSync, openSync } from "node:fs";

/** Makes durable which files a folder has. */
export function syncFolder(folder: string): void {
  const file = openSync(folder, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
