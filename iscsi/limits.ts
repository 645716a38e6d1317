import { assert } from "../brick/assert.ts";
import { KiB, MiB, sectorBytes, TiB } from "../brick/units.ts";
import {
  atomicBytesMax,
  compareBytesMax,
  orBytesMax,
  readBytesMax,
} from "../brick/volume/limits.ts";

/** Every bound of the iSCSI target. Times are in milliseconds. */

export const connectionsPerPortalMax = 1024;
export const connectionsPerAddressMax = 256;
/** Logins that are not over; beyond, the oldest of the address with most of them makes room. */
export const loginsInProgressMax = 128;
export const loginTimeoutMs = 15_000;
export const loginRequestsMax = 64;
/** What we send of a login's text in one PDU: RFC 7143 §13.12, before anything is negotiated. */
export const loginAnswerBytesMax = 8 * KiB;
/**
 * Failed proofs of one initiator name from one address: the first few cost nothing, from then on
 * further ones are examined this much apart, doubling up to the most.
 */
export const loginPenaltyFreeFailures = 3;
export const loginPenaltyMs = 25;
export const loginPenaltyMsMax = 400;
/** A proof that would wait longer than this is not examined. */
export const loginWaitMsMax = 800;
export const loginPenaltyForgottenMs = 60_000;
export const loginPenaltiesMax = 4096;
/** Log lines about refused logins. */
export const auditBurst = 32;
export const auditLinesPerSecond = 4;
export const sessionsPerTargetMax = 64;
/** Of one initiator name at this portal, discovery sessions too. */
export const sessionsPerInitiatorMax = 32;
/** LUNs beyond are not shown to an initiator. */
export const lunsPerSessionMax = 1024;
/** A lost nexus whose RESERVE(6) could not be released: how often and when it is tried again. */
export const nexusLossRetriesMax = 60;
export const nexusLossRetryMs = 5_000;

/** A connection on which nothing arrived for this long is asked for a sign of life, ... */
export const pingAfterIdleMs = 15_000;
/** ... and dropped when it gives none for this much longer. */
export const pingAnswerMs = 15_000;
/** A discovery session has nothing to wait for. */
export const discoveryIdleMs = 120_000;
/** How often idle connections are looked for. */
export const idleCheckMs = 1_000;
/** How long initiators are given to log out after they were asked to. */
export const drainLogoutSeconds = 10;

/** Additional header segments: one extended CDB and one bidirectional length fit twice over. */
export const ahsBytesMax = 512;
/** Text of one exchange, over all its PDUs; its pairs; and one value (RFC 7143 §6.1). */
export const textBytesMax = 64 * KiB;
export const textRequestsMax = 64;
export const textPairsMax = 256;
export const valueBytesMax = 255;
/** What the other side may send us in one PDU before it has negotiated: RFC 7143 §13.12. */
export const loginDataBytesMax = 8 * KiB;
export const receiveDataBytesMax = 1 * MiB;
export const firstBurstBytesMax = 256 * KiB;
export const maxBurstBytesOffered = 1 * MiB;
export const outstandingR2tMax = 8;

/** Commands of a session that were received and not answered. */
export const commandWindow = 128;
export const immediateTasksMax = 16;
/** Data of a request, commands apart, that waits because a CmdSN before its own is missing. */
export const heldDataBytesMax = 8 * KiB;
/** Data of a session's commands that are admitted; the first command is always admitted. */
export const sessionDataBytesMax = 64 * MiB;
/** What is received at a time, long data apart; and behind those, where the next header is looked for. */
export const receiveSlabBytes = 64 * KiB;
export const peekBytes = 4 * KiB;
/** Received data are kept in the chunk that they came in while it is at most so much larger; ... */
export const chunkShareMax = 16;
/** ... else they are copied into buffers of this size. */
export const gatherBytes = 64 * KiB;
/** Bytes handed to the socket that it has not taken: no more is read or started above this. */
export const unsentBytesMax = 16 * MiB;

/** Of one command's Data-In in one turn of the event loop: others are served in between. */
export const dataInTurnPdusMax = 2048;
export const dataInTurnBytesMax = 4 * MiB;

/** One command's data; told to initiators in VPD page B0. */
export const transferBytesMax = 32 * MiB;
assert(transferBytesMax <= readBytesMax);
export const unmapBlocksMax = 0x10_0000;
export const unmapDescriptorsMax = 256;
export const writeSameBlocksMax = 0x2_0000;
/** All that the CDB's one byte can say. */
export const compareAndWriteBlocksMax = 0xff;
assert(compareAndWriteBlocksMax * 512 <= compareBytesMax);
/** WRITE ATOMIC, wherever it begins. */
export const atomicBlocksMax = atomicBytesMax / sectorBytes;
export const orStepBytesMax = orBytesMax;
/** EXTENDED COPY: descriptors of a list, their bytes, copies of a session that are remembered. */
export const copyTargetsMax = 16;
export const copySegmentsMax = 64;
export const copyListBytesMax = copyTargetsMax * 32 + copySegmentsMax * 28;
export const copiesPerSessionMax = 16;
/** SET TARGET PORT GROUPS: a group is a brick. */
export const portGroupListBytesMax = 8 * KiB;
/** How long an initiator should wait for an access state to become what it will be. */
export const portTransitionSeconds = 30;
/** A command of many blocks without data of its own works in steps of this size. */
export const stepBytesMax = 1 * MiB;
/** GET LBA STATUS looks at no more than this, in steps; some seconds where nothing is written. */
export const allocationBytesMax = 1 * TiB;
export const allocationStepBytes = 1024 * MiB;
export const allocationRunsMax = 1024;
/** Initiators are told once the free space is no more than this share of the pool. */
export const softThresholdShare = 0.2;
/** How many reads and writes may pass until ports and space are looked at again. */
export const watchEveryCommands = 16;
/** PERSISTENT RESERVE OUT with SPEC_I_PT: some thirty initiator ports with the longest names. */
export const reservationListBytesMax = 8 * KiB;
export const unitAttentionsMax = 8;
