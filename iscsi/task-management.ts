import { taskManagementRequest, taskManagementResponse } from "./pdu.ts";
import { queueAttention, raiseAttention } from "./scsi/logical-unit.ts";
import { sense } from "./scsi/sense.ts";
import { abortTasks, isLunZero } from "./scsi-task.ts";
import { serialLess } from "./serial32.ts";
import type { ScsiTask, Session } from "./session-state.ts";
import { takeStatSn } from "./transfer.ts";

/** Task management (RFC 7143 §11.5, §11.6): answers come when the affected tasks have settled. */

export const taskManagementFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

export const taskManagementAnswer = {
  complete: 0,
  taskUnknown: 1,
  lunUnknown: 2,
  reassignUnsupported: 4,
  unsupported: 5,
} as const;

/** `coldReset` is called after the answer to TARGET COLD RESET was queued. */
export function manageTasks(session: Session, bhs: Buffer, coldReset: () => void): void {
  const fields = taskManagementRequest.fields;
  const tag = fields.initiatorTaskTag.get(bhs);
  const wanted = fields.function.get(bhs);
  session.managing += 1;
  const answer = (response: number): void => {
    session.managing -= 1;
    if (session.ended) return;
    session.connection.outbox.pdu(taskManagementResponse, {
      initiatorTaskTag: tag,
      response,
      statSn: takeStatSn(session),
      expCmdSn: session.expCmdSn,
      maxCmdSn: session.maxCmdSn,
    });
    session.connection.wake();
  };
  const complete = () => answer(taskManagementAnswer.complete);
  const ofUnit =
    wanted >= taskManagementFunction.abortTask &&
    wanted <= taskManagementFunction.logicalUnitReset &&
    wanted !== taskManagementFunction.clearAca;
  if (ofUnit && !isLunZero(fields.lunHigh.get(bhs), fields.lunLow.get(bhs))) {
    answer(taskManagementAnswer.lunUnknown);
    return;
  }
  switch (wanted) {
    case taskManagementFunction.abortTask: {
      const task = session.tasks.get(fields.referencedTaskTag.get(bhs));
      if (task === undefined || task.aborted) {
        answer(absentTaskAnswer(session, fields.refCmdSn.get(bhs)));
        return;
      }
      abortTasks([task], complete);
      return;
    }
    case taskManagementFunction.abortTaskSet:
      abortTasks([...session.tasks.values()], complete);
      return;
    case taskManagementFunction.clearTaskSet: {
      // SAM-5 §7.4: with TST 0 the task set is everybody's; the others are told (TAS is 0).
      const tasks = tasksOfUnit(session);
      for (const other of new Set(tasks.map((task) => task.session))) {
        if (other === session || other.nexus === null) continue;
        queueAttention(other.nexus, sense.commandsCleared);
      }
      abortTasks(tasks, complete);
      return;
    }
    case taskManagementFunction.logicalUnitReset:
    case taskManagementFunction.targetWarmReset:
      resetUnit(session, complete);
      return;
    case taskManagementFunction.targetColdReset:
      resetUnit(session, () => {
        complete();
        coldReset();
      });
      return;
    case taskManagementFunction.taskReassign:
      answer(taskManagementAnswer.reassignUnsupported);
      return;
    default:
      answer(taskManagementAnswer.unsupported);
      return;
  }
}

/**
 * RFC 7143 §11.6.1: a task that is not here is "unknown", unless its command has not arrived yet:
 * then it is as good as aborted. With one connection a command cannot be overtaken, so that
 * RefCmdSN past ExpCmdSN names one that was never sent.
 */
function absentTaskAnswer(session: Session, refCmdSn: number): number {
  return serialLess(refCmdSn, session.expCmdSn)
    ? taskManagementAnswer.taskUnknown
    : taskManagementAnswer.complete;
}

function resetUnit(session: Session, settled: () => void): void {
  const { unit } = session;
  if (unit === null) {
    settled();
    return;
  }
  raiseAttention(unit, sense.resetOccurred, null);
  abortTasks(tasksOfUnit(session), settled);
}

function tasksOfUnit(session: Session): ScsiTask[] {
  const tasks: ScsiTask[] = [];
  for (const other of session.node.sessions.values()) {
    if (other.unit === session.unit) tasks.push(...other.tasks.values());
  }
  return tasks;
}
