import type { UnitChange } from "../brick/unit/unit-changes.ts";
import { takeStatSn } from "./answers.ts";
import { countAsReceived } from "./command-order.ts";
import { decodeLun } from "./lun.ts";
import { taskManagementRequest, taskManagementResponse } from "./pdu.ts";
import { queueAttention } from "./scsi/logical-unit.ts";
import { sense } from "./scsi/sense.ts";
import { abortTasks, dropFence } from "./scsi-task.ts";
import { serialLess, serialWithin } from "./serial32.ts";
import type { ScsiTask, Session, SessionLun } from "./session-state.ts";

/**
 * Task management (RFC 7143 §11.5, §11.6; RFC 7144 §6): answers come when the affected tasks have
 * settled, at every portal. What concerns other initiators goes through the unit's shared state;
 * this nexus alone is managed here.
 */

export const taskManagementFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
  queryTask: 9,
  queryTaskSet: 10,
  nexusReset: 11,
  queryAsynchronousEvent: 12,
} as const;

export const taskManagementAnswer = {
  complete: 0,
  taskUnknown: 1,
  lunUnknown: 2,
  reassignUnsupported: 4,
  unsupported: 5,
  /** RFC 7144 §6.2: the answer "yes" of the queries. */
  succeeded: 7,
  rejected: 255,
} as const;

interface Request {
  readonly session: Session;
  /** null: the function is not about one logical unit. */
  readonly at: SessionLun | null;
  readonly lun: number | undefined;
  readonly referencedTaskTag: number;
  readonly refCmdSn: number;
  readonly cmdSn: number;
  /** `information`: three bytes of RFC 7144 §6.2's additional response information. */
  readonly answer: (response: number, information?: number) => void;
}

/** What a function needs, and what it does. */
interface Row {
  readonly ofUnit: boolean;
  /** The iSCSIProtocolLevel from which it exists. */
  readonly level: 1 | 2;
  /** Empties task sets of everybody: what comes after it must wait for its answer. */
  readonly fences?: true;
  readonly run: (request: Request, coldReset: () => void) => void;
}

const f = taskManagementFunction;
const a = taskManagementAnswer;

const rows: ReadonlyMap<number, Row> = new Map<number, Row>([
  [f.abortTask, { ofUnit: true, level: 1, run: abortTask }],
  [f.abortTaskSet, { ofUnit: true, level: 1, run: abortTaskSet }],
  // NormACA is 0 (INQUIRY): there is never an ACA condition to clear, SAM-5 §7.3 makes it optional.
  [f.clearAca, { ofUnit: false, level: 1, run: ({ answer }) => answer(a.unsupported) }],
  [f.clearTaskSet, { ofUnit: true, level: 1, fences: true, run: changeOne("clearTaskSet") }],
  [f.logicalUnitReset, { ofUnit: true, level: 1, fences: true, run: changeOne("reset") }],
  [f.targetWarmReset, { ofUnit: false, level: 1, fences: true, run: (one) => resetTarget(one) }],
  [f.targetColdReset, { ofUnit: false, level: 1, fences: true, run: resetTarget }],
  // Allegiance moves between connections at error recovery level 2 only (§7.2.2).
  [f.taskReassign, { ofUnit: false, level: 1, run: ({ answer }) => answer(a.reassignUnsupported) }],
  [f.queryTask, { ofUnit: true, level: 2, run: queryTask }],
  [f.queryTaskSet, { ofUnit: true, level: 2, run: queryTaskSet }],
  [f.nexusReset, { ofUnit: false, level: 2, run: resetNexus }],
  [f.queryAsynchronousEvent, { ofUnit: true, level: 2, run: queryAsynchronousEvent }],
]);

/** `coldReset` is called after the answer to TARGET COLD RESET was queued. */
export function manageTasks(session: Session, bhs: Buffer, coldReset: () => void): void {
  // The header outlives the chunk that it came in.
  const header = Buffer.from(bhs);
  const row = rows.get(taskManagementRequest.fields.function.get(header));
  session.managing += 1;
  if (session.fence !== null) session.fence.push(() => manage(session, header, row, coldReset));
  else manage(session, header, row, coldReset);
}

function manage(session: Session, bhs: Buffer, row: Row | undefined, coldReset: () => void): void {
  const fields = taskManagementRequest.fields;
  const tag = fields.initiatorTaskTag.get(bhs);
  const fences = row?.fences === true;
  if (fences) session.fence = [];
  const answer = (response: number, information = 0): void => {
    session.managing -= 1;
    if (session.ended) return;
    session.connection.outbox.pdu(taskManagementResponse, {
      initiatorTaskTag: tag,
      response,
      information,
      statSn: takeStatSn(session),
      expCmdSn: session.expCmdSn,
      maxCmdSn: session.maxCmdSn,
    });
    if (fences) dropFence(session);
    session.connection.wake();
  };
  if (row === undefined || row.level > session.parameters.protocolLevel) {
    answer(a.unsupported);
    return;
  }
  const lun = decodeLun(fields.lunHigh.get(bhs), fields.lunLow.get(bhs));
  const at = lun === undefined ? undefined : session.luns.get(lun);
  if (row.ofUnit && at === undefined) {
    answer(a.lunUnknown);
    return;
  }
  const request: Request = {
    session,
    at: at ?? null,
    lun,
    referencedTaskTag: fields.referencedTaskTag.get(bhs),
    refCmdSn: fields.refCmdSn.get(bhs),
    cmdSn: fields.cmdSn.get(bhs),
    answer,
  };
  row.run(request, coldReset);
}

function findTask({ session, lun, referencedTaskTag }: Request): ScsiTask | null {
  const task = session.tasks.get(referencedTaskTag);
  return task === undefined || task.aborted || task.lun !== lun ? null : task;
}

/** The session's tasks at one unit, or at all; without those that came after this request. */
function tasksAt(session: Session, at: SessionLun | null): ScsiTask[] {
  const tasks = [...session.tasks.values()].filter((task) => task.state !== "fenced");
  return at === null ? tasks : tasks.filter((task) => task.nexus === at.nexus);
}

function abortTask(request: Request): void {
  const { session, refCmdSn, cmdSn, answer } = request;
  const task = findTask(request);
  if (task !== null) {
    abortTasks([task], () => answer(a.complete));
    return;
  }
  // §11.6.1: a command that has not arrived, though its turn is before this request's, counts as
  // received from now on and never takes effect; any other that is not here does not exist.
  const missing =
    serialWithin(refCmdSn, session.expCmdSn, session.maxCmdSn) && serialLess(refCmdSn, cmdSn);
  if (!missing) {
    answer(a.taskUnknown);
    return;
  }
  countAsReceived(session, refCmdSn);
  answer(a.complete);
}

function abortTaskSet({ session, at, answer }: Request): void {
  abortTasks(tasksAt(session, at), () => answer(a.complete));
}

function changeOne(type: "clearTaskSet" | "reset"): (request: Request) => void {
  return (request) => changeUnits(request, type, [request.at!], () => request.answer(a.complete));
}

/** Both kinds reset every unit that the initiator sees; the cold one ends the sessions too. */
function resetTarget(request: Request, coldReset?: () => void): void {
  const { session, answer } = request;
  changeUnits(request, "reset", [...session.luns.values()], () => {
    answer(a.complete);
    coldReset?.();
  });
}

/**
 * Changes the shared state of units, which ends tasks at all portals, and calls `settled` when none
 * of them can have an effect any more. When the cluster cannot decide now, the function is rejected
 * (§11.6.1): the initiator may try again or end the session, and must not take it for done.
 */
function changeUnits(
  request: Request,
  type: "clearTaskSet" | "reset",
  units: readonly SessionLun[],
  settled: () => void,
): void {
  const { session, at, answer } = request;
  // §4.2.3.3: all that came before the request is affected, held back or not.
  const own = tasksAt(session, at);
  const changes = units.map(({ unit, nexus }) => {
    const change: UnitChange = { type, nexus: nexus.id };
    return unit.volume.changeUnit(change);
  });
  Promise.all(changes).then((results) => {
    if (results.every((result) => result.ok)) abortTasks(own, settled);
    else answer(a.rejected);
  });
}

function queryTask(request: Request): void {
  request.answer(findTask(request) === null ? a.complete : a.succeeded);
}

function queryTaskSet({ session, at, answer }: Request): void {
  const some = tasksAt(session, at).some((task) => !task.aborted);
  answer(some ? a.succeeded : a.complete);
}

/** RFC 7144 §6.1, SAM-5 §7.6: as if the session had been lost, for every unit of it. */
function resetNexus({ session, answer }: Request): void {
  const released = [...session.luns.values()].map(({ unit, nexus }) => {
    queueAttention(nexus, sense.nexusLost);
    const { reserve6 } = unit.volume.unit().reservations;
    if (reserve6 === null) return { ok: true };
    return unit.volume.changeUnit({ type: "nexusLost", nexus: nexus.id });
  });
  abortTasks(tasksAt(session, null), () => {
    Promise.all(released).then((results) => {
      answer(results.every(({ ok }) => ok) ? a.complete : a.rejected);
    });
  });
}

/** SAM-5 §7.9: the next unit attention, and whether others wait behind it (UADE depth). */
function queryAsynchronousEvent({ at, answer }: Request): void {
  const [first, second] = at!.nexus.attentions;
  if (first === undefined) {
    answer(a.complete);
    return;
  }
  const depth = second === undefined ? 1 : 2;
  answer(a.succeeded, (depth << 20) | (first.key << 16) | (first.asc << 8) | first.ascq);
}
