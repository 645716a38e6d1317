import { stage } from "../brick/stage-times.ts";
import { VolumeTask } from "../brick/volume/volume.ts";
import { sessionDataBytesMax, stepBytesMax, unsentBytesMax } from "./limits.ts";
import { decodeLun } from "./lun.ts";
import { dataOut, scsiCommand } from "./pdu.ts";
import type { Pdu } from "./pdu-stream.ts";
import { refused, type ScsiCommand, type ScsiResult, withStatus } from "./scsi/command.ts";
import { runCommand } from "./scsi/device-server.ts";
import { absentInquiry } from "./scsi/inquiry.ts";
import { findCommand } from "./scsi/opcodes.ts";
import { scsiStatus, sense } from "./scsi/sense.ts";
import { absentRequestSense, reportLuns } from "./scsi/unit-commands.ts";
import { serialAdd } from "./serial32.ts";
import { type ScsiTask, type Session, taskAttribute } from "./session-state.ts";
import { hasAllData, sendR2ts, sendResult, takeDataOut, takeImmediateData } from "./transfer.ts";

/** The life of a SCSI command in the target, from its PDU to its status. */

/** Commands of fewer bytes are questions about the unit, not reads or writes of it. */
const stagedBytesMin = 512;

/** Makes a task of a command PDU; data that came with it is taken in. */
export function makeTask(session: Session, pdu: Pdu, cdb: Buffer): ScsiTask {
  const fields = scsiCommand.fields;
  const { bhs } = pdu;
  const lunHigh = fields.lunHigh.get(bhs);
  const lunLow = fields.lunLow.get(bhs);
  const lun = decodeLun(lunHigh, lunLow);
  const at = lun === undefined ? undefined : session.luns.get(lun);
  const row = at === undefined ? undefined : findCommand(cdb);
  const reads = fields.read.get(bhs);
  const writes = fields.write.get(bhs);
  const expectedLength = fields.expectedLength.get(bhs);
  const expectedBytes = reads || writes ? expectedLength : 0;
  const wantedBytes = at === undefined ? 0 : (row?.dataOutBytes?.(at.unit, cdb) ?? 0);
  const stepBytes = row?.worksInSteps === true ? stepBytesMax : 0;
  const task: ScsiTask = {
    session,
    unit: at?.unit ?? null,
    nexus: at?.nexus ?? null,
    luns: session.lunList,
    peers: session.peers,
    queriesTasks: session.parameters.protocolLevel >= 2,
    row,
    cdb,
    tag: fields.initiatorTaskTag.get(bhs),
    lunHigh,
    lunLow,
    lun,
    immediate: fields.immediate.get(bhs),
    attribute: fields.attribute.get(bhs),
    reads,
    writes,
    cmdSn: fields.cmdSn.get(bhs),
    expectedBytes,
    wantedBytes,
    costBytes: Math.min(expectedBytes + stepBytes, sessionDataBytesMax),
    receivedMs: session.connection.lastReceivedMs,
    dataOut: [],
    received: null,
    dataOutBytes: 0,
    gathered: null,
    receivedBytes: 0,
    unsolicited: writes && !fields.final.get(bhs),
    dataSn: 0,
    r2ts: [],
    r2tSn: 0,
    r2tOffset: 0,
    state: "held",
    aborted: false,
    cleared: false,
    answersAborted: false,
    failure: null,
    damaged: false,
    task: null,
    onSettled: null,
  };
  if (task.unsolicited && session.parameters.initialR2t) {
    task.failure = sense.unexpectedUnsolicitedData;
  }
  task.failure ??= takeImmediateData(task, pdu);
  // Bidirectional commands: none in the set (SBC-4 has obsoleted them).
  if (reads && writes) task.failure ??= sense.invalidInformationUnit;
  // A command that takes data, announced as one that sends none.
  if (wantedBytes > 0 && !writes) task.failure ??= sense.invalidInformationUnit;
  return task;
}

/** The task's turn has come by CmdSN: it waits for admission, and starts if nothing is before it. */
export function queueTask(task: ScsiTask): void {
  const { session } = task;
  if (task.state !== "held" && task.state !== "fenced") return;
  if (session.fence !== null) {
    task.state = "fenced";
    session.fence.push(() => queueTask(task));
    return;
  }
  task.state = "waiting";
  if (task.attribute === taskAttribute.headOfQueue) session.waiting.unshift(task);
  else session.waiting.push(task);
  admitTasks(session);
}

/** Starts waiting tasks in order, within the session's memory and behind ORDERED ones. */
export function admitTasks(session: Session): void {
  const { waiting } = session;
  while (waiting.length > 0) {
    const task = waiting[0]!;
    if (session.admitted > 0) {
      if (session.orderedAdmitted || task.attribute === taskAttribute.ordered) return;
      if (session.admittedBytes + task.costBytes > sessionDataBytesMax) return;
    }
    if (session.connection.unsentBytes > unsentBytesMax) return;
    waiting.shift();
    session.admitted += 1;
    session.admittedBytes += task.costBytes;
    session.orderedAdmitted = task.attribute === taskAttribute.ordered;
    task.state = "receiving";
    progress(task);
  }
}

/** Data for a task. Data for none is dropped: it was under way when its task ended. */
export function receiveDataOut(session: Session, tag: number, pdu: Pdu): void {
  const task = session.tasks.get(tag);
  if (task === undefined || task.state === "running") return;
  task.failure ??= takeDataOut(task, pdu);
  if (task.state === "receiving") progress(task);
}

/** Data-Out that came damaged: the command fails, once all has come that was asked for (§7.8). */
export function receiveDamagedData(session: Session, pdu: Pdu): void {
  const task = session.tasks.get(dataOut.fields.initiatorTaskTag.get(pdu.bhs));
  if (task === undefined || task.state === "running") return;
  task.damaged = true;
  task.failure ??= takeDataOut(task, pdu);
  if (task.state === "receiving") progress(task);
}

/** Runs the command when its data is there, else asks for more. */
function progress(task: ScsiTask): void {
  if (task.answersAborted) {
    // RFC 7143 §11.4.2: not before all has come that was asked for.
    if (task.unsolicited || task.r2ts.length > 0) return;
    task.state = "running";
    finishTask(task, withStatus(scsiStatus.taskAborted));
    return;
  }
  if (task.failure === null && task.damaged) {
    if (task.unsolicited || task.r2ts.length > 0) return;
    task.failure = sense.protocolServiceCrcError;
  }
  if (task.failure === null && !hasAllData(task)) {
    sendR2ts(task);
    return;
  }
  task.state = "running";
  timeReceived(task);
  const outcome = task.failure === null ? runTask(task) : refused(task.failure);
  if (outcome instanceof Promise) outcome.then((result) => finishTask(task, result));
  else finishTask(task, outcome);
}

function runTask(task: ScsiTask): ScsiResult | Promise<ScsiResult> {
  if (!isAddressed(task)) return runOnAbsentUnit(task);
  return runCommand(task, task.row, task.wantedBytes);
}

/** Whether the session still has the unit; from here on the task can take effect there. */
function isAddressed(task: ScsiTask): task is ScsiTask & ScsiCommand {
  const { session, lun, unit, nexus } = task;
  if (unit === null || nexus === null || lun === undefined) return false;
  if (session.luns.get(lun)?.nexus !== nexus) return false;
  task.task = new VolumeTask(nexus.id, unit.noticeNext);
  return true;
}

/** SPC-5 §6.6.2, SAM-5 §4.7.4: what a LUN without a unit answers. */
function runOnAbsentUnit({ cdb, luns }: ScsiTask): ScsiResult {
  switch (cdb[0]) {
    case 0x12:
      return absentInquiry(cdb);
    case 0x03:
      return absentRequestSense(cdb);
    case 0xa0:
      return reportLuns(cdb, luns);
    default:
      return refused(sense.unitNotSupported);
  }
}

/** Its data, if it takes any, is here. Others than reads and writes are not of interest. */
function timeReceived({ session, receivedMs, reads, writes, expectedBytes }: ScsiTask): void {
  const stages = session.node.metrics?.stages;
  if (stages === undefined || expectedBytes < stagedBytesMin || reads === writes) return;
  const which = writes ? stage.writeReceive : stage.readReceive;
  stages.took(which, stages.sample(which, receivedMs));
}

/** One answer at a time: the oldest in the outbox is what waits longest for the socket. */
function timeAnswer({ session, reads, writes, expectedBytes }: ScsiTask): void {
  const { connection, node } = session;
  const stages = node.metrics?.stages;
  if (stages === undefined || connection.answerSinceMs > 0) return;
  if (expectedBytes < stagedBytesMin || reads === writes) return;
  connection.answerStage = writes ? stage.writeAnswer : stage.readAnswer;
  connection.answerSinceMs = stages.since(connection.answerStage);
}

function finishTask(task: ScsiTask, result: ScsiResult): void {
  timeAnswer(task);
  if (task.cleared && result.status === scsiStatus.taskAborted) task.aborted = true;
  sendOn(
    task,
    result,
    sendResult(task, result, () => removeTask(task)),
  );
}

/** Goes on in a later turn when there is much to send; the task may be aborted until then. */
function sendOn(task: ScsiTask, result: ScsiResult, steps: Iterator<void>): void {
  const { session } = task;
  const { node, connection } = session;
  if (!task.aborted && steps.next().done !== true) {
    connection.wake();
    node.clock.soon(() => sendOn(task, result, steps));
    return;
  }
  if (task.aborted) removeTask(task);
  else {
    node.metrics?.command(
      task.cdb[0]!,
      result.status,
      node.clock.nowMs() - task.receivedMs,
      task.dataOutBytes,
      result.dataBytes,
    );
  }
  settle(task);
  if (!session.ended) admitTasks(session);
  connection.wake();
}

/** Frees what the task holds, its place in the command window too. */
function removeTask(task: ScsiTask): void {
  const { session } = task;
  if (task.state === "receiving" || task.state === "running") {
    session.admitted -= 1;
    session.admittedBytes -= task.costBytes;
    if (task.attribute === taskAttribute.ordered) session.orderedAdmitted = false;
  } else if (task.state === "waiting") {
    session.waiting.splice(session.waiting.indexOf(task), 1);
  }
  const wasHeld = task.state === "held";
  task.state = "ended";
  session.tasks.delete(task.tag);
  if (task.immediate) session.immediateTasks -= 1;
  // The window is as wide as there are places: one more with every command that ends, but not
  // before ExpCmdSN has passed it (session.ts).
  else if (!wasHeld) session.maxCmdSn = serialAdd(session.maxCmdSn, 1);
}

function settle(task: ScsiTask): void {
  const settled = task.onSettled;
  task.onSettled = null;
  for (const action of settled ?? []) action();
}

/**
 * Ends tasks without an answer to them, and calls `settled` once none of them can have an effect
 * any more: what runs is cancelled and waited for (DESIGN.md, invariant 5).
 */
export function abortTasks(tasks: readonly ScsiTask[], settled: () => void): void {
  let running = 1;
  const oneSettled = () => {
    running -= 1;
    if (running === 0) settled();
  };
  const sessions = new Set<Session>();
  for (const task of tasks) {
    task.aborted = true;
    sessions.add(task.session);
    if (task.state === "running") {
      running += 1;
      task.onSettled ??= [];
      task.onSettled.push(oneSettled);
      task.task?.cancel();
    } else if (task.state !== "ended") {
      removeTask(task);
    }
  }
  for (const session of sessions) {
    if (session.ended) continue;
    admitTasks(session);
    session.connection.wake();
  }
  oneSettled();
}

/**
 * The same for tasks that another initiator's request ends. What had come to its end by then is
 * answered: with TAS 0 an initiator would wait in vain for a command that nobody could abort any more.
 */
export function clearTasks(tasks: readonly ScsiTask[], settled: () => void): void {
  const running = tasks.filter((task) => task.state === "running");
  const others = tasks.filter((task) => task.state !== "running");
  for (const task of running) task.cleared = true;
  let parts = 2;
  const oneSettled = () => {
    parts -= 1;
    if (parts === 0) settled();
  };
  abortTasks(others, oneSettled);
  cancelTasks(running, oneSettled);
}

/**
 * The same with TAS 1: each is answered TASK ABORTED (SAM-5 §5.3.1) unless it had come to its end.
 * One that has not begun to run never will.
 */
export function answerTasks(tasks: readonly ScsiTask[], settled: () => void): void {
  const sessions = new Set<Session>();
  for (const task of tasks) {
    if (task.state === "running") continue;
    task.answersAborted = true;
    sessions.add(task.session);
    if (task.state === "receiving") progress(task);
  }
  for (const session of sessions) if (!session.ended) session.connection.wake();
  cancelTasks(tasks, settled);
}

/**
 * Brings running commands to their end soon, and calls `settled` then; they are answered with what
 * came of them. Others are left alone.
 */
export function cancelTasks(tasks: readonly ScsiTask[], settled: () => void): void {
  let running = 1;
  const oneSettled = () => {
    running -= 1;
    if (running === 0) settled();
  };
  for (const task of tasks) {
    if (task.state !== "running") continue;
    running += 1;
    task.onSettled ??= [];
    task.onSettled.push(oneSettled);
    task.task?.cancel();
  }
  oneSettled();
}

/** Lets begin what waited for the end of task management, up to the next such request. */
export function dropFence(session: Session): void {
  const waiting = session.fence ?? [];
  session.fence = null;
  for (const [at, action] of waiting.entries()) {
    if (session.ended) return;
    if (session.fence !== null) {
      (session.fence as (() => void)[]).push(...waiting.slice(at));
      return;
    }
    action();
  }
}
