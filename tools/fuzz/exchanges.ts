import {
  logoutRequest,
  nopOut,
  scsiCommand,
  snackRequest,
  taskManagementRequest,
  textRequest,
} from "../../iscsi/pdu.ts";
import { blockBytes } from "../../iscsi/scsi/cdb.ts";
import type { LogicalUnit } from "../../iscsi/scsi/logical-unit.ts";
import { encodeText } from "../../iscsi/text-keys.ts";
import { type SourcedCommand, someCommand, strangeCommand } from "./cdb-source.ts";
import type { Initiator } from "./initiator.ts";
import { strangeOffers } from "./text-source.ts";
import { noTag } from "./wire.ts";

/** What an initiator may do next, in the full feature phase. */

export interface ExchangeChoice {
  readonly weight: number;
  /** Left out by initiators that keep to the rules and leave each other alone. */
  readonly hostile: boolean;
  readonly begin: (initiator: Initiator, unit: LogicalUnit, hostile: boolean) => void;
}

const burstsMax = 16;

const choices: readonly ExchangeChoice[] = [
  { weight: 50, hostile: false, begin: sendSomeCommand },
  { weight: 6, hostile: true, begin: sendStrangeCommand },
  { weight: 8, hostile: false, begin: sendPing },
  { weight: 5, hostile: false, begin: sendText },
  { weight: 3, hostile: true, begin: sendStrangeText },
  { weight: 8, hostile: true, begin: sendTaskManagement },
  { weight: 2, hostile: false, begin: (initiator) => sendLogout(initiator, 0) },
  { weight: 1, hostile: true, begin: (initiator) => sendLogout(initiator, 1) },
  { weight: 1, hostile: true, begin: (initiator) => sendLogout(initiator, 2) },
  { weight: 1, hostile: true, begin: sendSnack },
  { weight: 2, hostile: true, begin: skipNumber },
  { weight: 1, hostile: true, begin: flood },
];

export function beginExchange(initiator: Initiator, unit: LogicalUnit, hostile: boolean): void {
  const open = choices.filter((one) => hostile || !one.hostile);
  let left = initiator.prng.between(
    1,
    open.reduce((sum, one) => sum + one.weight, 0),
  );
  for (const choice of open) {
    left -= choice.weight;
    if (left > 0) continue;
    choice.begin(initiator, unit, hostile);
    return;
  }
}

function sendSomeCommand(initiator: Initiator, unit: LogicalUnit, hostile: boolean): void {
  const { prng, burstBytes } = initiator;
  // With bursts of 512 B a long write would be nothing but thousands of R2Ts.
  const blocksMax = Math.floor((burstsMax * burstBytes) / blockBytes);
  const command = someCommand(prng, unit, blocksMax, !hostile);
  sendCommand(initiator, command, prng.chance(0.05));
}

function sendStrangeCommand(initiator: Initiator): void {
  sendCommand(initiator, strangeCommand(initiator.prng), initiator.prng.chance(0.3));
}

/** Sends a command with its data in one of the ways that were agreed on (RFC 7143 §4.2.5.2). */
export function sendCommand(
  initiator: Initiator,
  command: SourcedCommand,
  immediate: boolean,
): number {
  const { prng } = initiator;
  const tag = initiator.nextTag();
  const data = command.dataOut ?? Buffer.alloc(0);
  const writes = command.dataOut !== null && command.expectedBytes > 0;
  const unsolicitedBytes = Math.min(data.length, initiator.firstBurstBytes);
  const immediateBytes =
    initiator.immediateData && prng.chance(0.5)
      ? Math.min(
          prng.pick([unsolicitedBytes, 512, 1000]),
          unsolicitedBytes,
          initiator.segmentBytesMax,
        )
      : 0;
  const sendsMore = writes && !initiator.initialR2t && prng.chance(0.5);
  const unsolicited = sendsMore && immediateBytes < unsolicitedBytes;
  initiator.commands.set(tag, []);
  if (writes) initiator.writes.set(tag, data);
  const values = {
    initiatorTaskTag: tag,
    final: !unsolicited,
    read: command.reads && command.expectedBytes > 0,
    write: writes,
    attribute: prng.pick([1, 1, 1, 1, 0, 2, 3]),
    expectedLength: command.expectedBytes,
    cdb: command.cdb,
    ...initiator.numbers(immediate),
  };
  initiator.send(scsiCommand, values, data.subarray(0, immediateBytes));
  if (unsolicited) initiator.sendData(tag, noTag, immediateBytes, unsolicitedBytes, data);
  return tag;
}

export function sendPing(initiator: Initiator): void {
  const { prng } = initiator;
  const longest = Math.min(initiator.segmentBytesMax, prng.chance(0.95) ? 2000 : 200_000);
  const data = Buffer.alloc(prng.between(0, longest), prng.between(0, 255));
  initiator.send(
    nopOut,
    {
      initiatorTaskTag: initiator.nextTag(),
      targetTransferTag: noTag,
      ...initiator.numbers(prng.chance(0.5)),
    },
    data,
  );
}

function sendText(initiator: Initiator): void {
  const { prng, options } = initiator;
  const own = prng.pick(["", options.targetName]);
  const wanted = options.targetName === "" ? prng.pick(["All", "iqn.2026-11.endisk:wild"]) : own;
  sendPairs(initiator, encodeText([["SendTargets", wanted]]));
}

function sendStrangeText(initiator: Initiator): void {
  sendPairs(initiator, encodeText(strangeOffers(initiator.prng)));
}

function sendPairs(initiator: Initiator, text: Buffer): void {
  const { prng } = initiator;
  const initiatorTaskTag = initiator.nextTag();
  const torn =
    prng.chance(0.2) && initiator.textRest.length === 0 ? prng.between(1, text.length - 1) : 0;
  const fixed = { initiatorTaskTag, targetTransferTag: noTag };
  if (torn > 0) {
    // §11.10.2: in parts, each answered before the next; the rest is asked for with its tag.
    const part = { ...fixed, continue: true, ...initiator.numbers(true) };
    initiator.send(textRequest, part, text.subarray(0, torn));
    initiator.textRest = text.subarray(torn);
    return;
  }
  initiator.send(
    textRequest,
    { ...fixed, final: true, ...initiator.numbers(prng.chance(0.5)) },
    text,
  );
}

function sendTaskManagement(initiator: Initiator): void {
  const { prng } = initiator;
  const tags = [...initiator.commands.keys()];
  const wanted = prng.chance(0.5) ? 1 : prng.between(0, 14);
  const referenced = tags.length > 0 && prng.chance(0.9) ? prng.pick(tags) : prng.uint32();
  initiator.send(taskManagementRequest, {
    initiatorTaskTag: initiator.nextTag(),
    function: wanted,
    referencedTaskTag: referenced,
    refCmdSn: serialNear(initiator),
    ...initiator.numbers(prng.chance(0.7)),
  });
}

function serialNear(initiator: Initiator): number {
  return (initiator.cmdSn + initiator.prng.between(-4, 4)) >>> 0;
}

export function sendLogout(initiator: Initiator, reason: number): void {
  initiator.send(logoutRequest, {
    initiatorTaskTag: initiator.nextTag(),
    reason,
    connectionId: 1,
    ...initiator.numbers(true),
  });
}

function sendSnack(initiator: Initiator): void {
  initiator.send(snackRequest, {
    initiatorTaskTag: initiator.nextTag(),
    type: initiator.prng.between(0, 3),
    targetTransferTag: noTag,
    expStatSn: initiator.expStatSn,
  });
}

/** Many of the same at once, immediate, so that no window holds them back. */
function flood(initiator: Initiator): void {
  const { prng } = initiator;
  const begin = prng.pick([sendTaskManagement, sendPing, sendStrangeCommand, sendStrangeText]);
  for (let count = prng.between(20, 200); count > 0; count -= 1) begin(initiator);
}

/** Leaves a gap, so that what follows is held until the window is lost or the gap is filled. */
function skipNumber(initiator: Initiator): void {
  if (initiator.prng.chance(0.5)) initiator.cmdSn = initiator.expCmdSn;
  else initiator.numbers(false);
}
