import { canonicalName } from "../brick/unit/iscsi-name.ts";
import { loginStatus } from "./login-status.ts";
import { bhsBytes, decode, loginRequest, type Values } from "./pdu.ts";

/** What a Login Request says by itself: its header, and who wants in (RFC 7143 §11.12). */

export type LoginRequest = Values<typeof loginRequest.fields>;

/** RFC 7143 §11.12.3. */
export const loginStage = { security: 0, operational: 1, fullFeature: 3 } as const;

/** Who wants in, known from the first request (RFC 7143 §6.3.1). */
export interface LoginIdentity {
  /** In canonical form, as `targetName` is. */
  initiatorName: string;
  /** Hex of the six ISID bytes. */
  isid: string;
  connectionId: number;
  discovery: boolean;
  /** Empty in a discovery session that names none. */
  targetName: string;
}

export interface Refusal {
  readonly status: number;
  readonly reason: string;
}

/** The header's fields; the request outlives the chunk that it came in. */
export function readLoginRequest(bhs: Buffer): LoginRequest {
  return decode(loginRequest, Buffer.from(bhs.subarray(0, bhsBytes)));
}

/**
 * What is wrong with a request's header, if anything. `first` is the login's first request, `stage`
 * the stage that the login has reached; null, both, before the first.
 */
export function headerFault(
  request: LoginRequest,
  first: LoginRequest | null,
  stage: number | null,
): Refusal | null {
  const error = (reason: string) => ({ status: loginStatus.initiatorError, reason });
  if (request.versionMin > 0) {
    return { status: loginStatus.unsupportedVersion, reason: `version ${request.versionMin}` };
  }
  const { currentStage, nextStage, transit } = request;
  // §11.12.1-3: C and T exclude each other, stages go forward, 2 is reserved.
  if (request.continue && transit) return error("C and T bits together");
  if (currentStage !== loginStage.security && currentStage !== loginStage.operational) {
    return error(`current stage ${currentStage}`);
  }
  if (transit && (nextStage <= currentStage || nextStage === 2)) {
    return error(`next stage ${nextStage} from ${currentStage}`);
  }
  if (stage !== null && currentStage !== stage) {
    return error(`current stage ${currentStage} in stage ${stage}`);
  }
  if (first === null) {
    // §11.12.5: the type 11b is reserved.
    return request.isid[0]! >>> 6 === 3 ? error("ISID of a reserved type") : null;
  }
  const same =
    first.isid.equals(request.isid) &&
    first.tsih === request.tsih &&
    first.connectionId === request.connectionId &&
    first.initiatorTaskTag === request.initiatorTaskTag &&
    // §11.12.8: requests of one login carry the same CmdSN; none is used up.
    first.cmdSn === request.cmdSn;
  return same ? null : error("ISID, TSIH, CID, task tag or CmdSN changed during login");
}

export function identify(
  request: LoginRequest,
  offers: ReadonlyMap<string, string>,
): { ok: true; identity: LoginIdentity } | ({ ok: false } & Refusal) {
  const missing = (key: string) => {
    const status = loginStatus.missingParameter;
    return { ok: false, status, reason: `no ${key}` } as const;
  };
  const initiator = offers.get("InitiatorName") ?? "";
  if (initiator === "") return missing("InitiatorName");
  const initiatorName = canonicalName(initiator);
  if (initiatorName === undefined) {
    const status = loginStatus.initiatorError;
    return { ok: false, status, reason: "InitiatorName is no iSCSI name" };
  }
  const sessionType = offers.get("SessionType") ?? "Normal";
  if (sessionType !== "Normal" && sessionType !== "Discovery") {
    const status = loginStatus.unsupportedSessionType;
    return { ok: false, status, reason: "SessionType is neither Normal nor Discovery" };
  }
  const discovery = sessionType === "Discovery";
  const target = offers.get("TargetName") ?? "";
  if (target === "" && !discovery) return missing("TargetName");
  const targetName = target === "" ? "" : canonicalName(target);
  if (targetName === undefined) {
    const status = loginStatus.notFound;
    return { ok: false, status, reason: "TargetName is no iSCSI name" };
  }
  const isid = request.isid.toString("hex");
  const { connectionId } = request;
  return { ok: true, identity: { initiatorName, isid, connectionId, discovery, targetName } };
}
