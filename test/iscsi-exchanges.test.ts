import assert from "node:assert/strict";
import { test } from "node:test";
import { replay } from "./exchanges/replay.ts";
import { openMemoryScene } from "./exchanges/scene.ts";
import { storiesOver } from "./exchanges/stories.ts";
import { parseStory } from "./exchanges/story.ts";

/** Initiators' exchanges, told in test/exchanges/, against portals over a disk in memory. */

for (const { file, story } of storiesOver("memory")) {
  test(`${file}: ${story.title}`, async (context) => {
    const scene = await openMemoryScene(story);
    context.after(() => scene.close());
    await replay(story, scene);
  });
}

/** A story that begins well, so that what is added to it can be what fails. */
const beginning = `title a beginning
over memory
volume disk 64MiB
connect host
login operational -> full
  > InitiatorName=iqn.2026-11.test:host
  > TargetName=iqn.2026-11.endisk:disk
  < TargetPortalGroupTag=1
scsi TEST UNIT READY: 00*6
  sense 6/29/00
`;

const inquiry = "scsi INQUIRY: 12 00 00 00 24 00 in 36\n  good\n";

/** What a target did otherwise must show, whichever way the story says it. */
const wrong: readonly (readonly [added: string, message: RegExp])[] = [
  ["scsi INQUIRY: 12 00 00 00 24 00 in 36\n  conflict\n", /line 11: .*\n.*status 0x0/s],
  ["scsi TEST UNIT READY: 00*6\n  sense 6/29/00\n", /line 11:.*status 0x0/s],
  ["scsi no such command: ff 00*5\n  good\n", /sense 5\/20\/00/],
  [`${inquiry}  [8] "OTHER"\n`, /\[8\] 45 4e 44 49 53 is not "OTHER"/],
  [`${inquiry}  [35] 00 00\n`, /\[35\]/],
  [`${inquiry}  [4]u8 >= 200\n`, /\[4\]u8 is 91, not >= 200/],
  [`${inquiry}  [7]&02 00\n`, /byte 7/],
  [`${inquiry}  length = 35\n`, /36 bytes, not = 35/],
  [`${inquiry}  contains "OTHER"\n`, /contains "OTHER"/],
  [`${inquiry}  lacks "END DISK"\n`, /lacks "END DISK"/],
  [`${inquiry}  residual under 4\n`, /underflow/],
  [`${inquiry}  designator 3 association 0 as naa\n`, /no designator of type 3/],
  ["text\n  > SendTargets=\n  < TargetName=iqn.2026-11.endisk:other\n", /no TargetName=/],
  ["text\n  > SendTargets=\n  < !TargetAddress\n", /TargetAddress answered/],
  ["task lun-reset\n  response 5\n", /response/],
  ["logout\n  response 1\n", /response/],
  ["scsi x: $nothing\n  good\n", /\$nothing is not known yet/],
  ["as nobody\n", /nobody is called nobody/],
];

test("a target that does otherwise fails the story, at its line", async () => {
  for (const [added, message] of wrong) {
    const story = parseStory(beginning + added);
    const scene = await openMemoryScene(story);
    try {
      await assert.rejects(replay(story, scene), message, added);
    } finally {
      await scene.close();
    }
  }
});

test("a line that means nothing is refused", () => {
  const lines = ["jump", "scsi x: 00*6", "scsi x: 00*6\n  good\n  busy", "  good"];
  lines.push(
    "scsi x: zz\n  good",
    "scsi x: 00\n  good\n  [1]u32 ~ 1",
    "login nowhere",
    "task dance",
  );
  for (const line of lines) assert.throws(() => parseStory(beginning + line), /line \d+/, line);
  assert.throws(() => parseStory("over memory"), /no title/);
});
