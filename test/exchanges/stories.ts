import { readdirSync, readFileSync } from "node:fs";
import { parseStory, type SceneKind, type Story } from "./story.ts";

const folder = new URL(".", import.meta.url);

/** The stories of this folder that can be played against a kind of scene, by name. */
export function storiesOver(kind: SceneKind): { file: string; story: Story }[] {
  const files = readdirSync(folder).filter((name) => name.endsWith(".exchange"));
  return files
    .sort()
    .map((file) => ({ file, story: readStory(file) }))
    .filter(({ story }) => story.over.includes(kind));
}

function readStory(file: string): Story {
  try {
    return parseStory(readFileSync(new URL(file, folder), "utf8"));
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}
