import assert from "node:assert/strict";
import type { ChapAccount } from "./authority.ts";
import { chapResponse, decodeBinary, encodeBinary } from "./chap.ts";
import { TestInitiator, type TestNode, testNode, textOf } from "./initiator.test-double.ts";
import { MemoryVolume, memoryDirectory } from "./memory-volume.test-double.ts";
import { loginResponse } from "./pdu.ts";
import type { TextPair } from "./text-keys.ts";

export const target = "iqn.2026-11.endisk:disk";
export const initiatorName = "iqn.2026-11.test:initiator";
export const secret = Buffer.from("sixteen-bytes-ok");
export const targetSecret = Buffer.from("another-sixteen!");

export function account(changes: Partial<ChapAccount> = {}): ChapAccount {
  return { user: "alice", secret, algorithms: [8, 7], mutual: null, ...changes };
}

export function guardedNode(chap: ChapAccount | null): TestNode {
  const node = testNode(memoryDirectory([new MemoryVolume("disk", 1 << 20)]));
  node.authority.proofs.set(initiatorName, { method: "chap", account: chap });
  node.authority.proofOfOthers = { method: "chap", account: null };
  return node;
}

/** One initiator's way through the security stage, step by step. */
export class ChapInitiator extends TestInitiator {
  readonly who: TextPair[];

  constructor(node: TestNode, name = initiatorName, wanted = target, address?: string) {
    super(node, address);
    this.who = [
      ["InitiatorName", name],
      wanted === "" ? ["SessionType", "Discovery"] : ["TargetName", wanted],
    ];
  }

  ask(pairs: readonly TextPair[], transit = false) {
    const isid = Buffer.from("800000000001", "hex");
    this.sendLogin(pairs, { currentStage: 0, isid, transit, nextStage: transit ? 1 : 0 });
    return this.answered();
  }

  answered() {
    const { values, data } = this.takeOne(loginResponse);
    const text = textOf({ opcode: 0, values, data });
    return { status: (values.statusClass << 8) | values.statusDetail, values, text };
  }

  /** Up to the challenge. */
  challenged(algorithms = "8,7,6,5") {
    const first = this.ask([...this.who, ["AuthMethod", "CHAP,None"]]);
    assert.equal(first.text.get("AuthMethod"), "CHAP");
    const { text } = this.ask([["CHAP_A", algorithms]]);
    const challenge = decodeBinary(text.get("CHAP_C")!)!;
    return { algorithm: Number(text.get("CHAP_A")), id: Number(text.get("CHAP_I")), challenge };
  }

  response(wanted: Buffer = secret, algorithms?: string): Buffer {
    const { algorithm, id, challenge } = this.challenged(algorithms);
    return chapResponse(algorithm, id, wanted, challenge);
  }

  /** The whole exchange; the status of its last answer. */
  prove(options: { user?: string; secret?: Buffer; algorithms?: string; extra?: TextPair[] } = {}) {
    const response = this.response(options.secret, options.algorithms);
    const proof: TextPair[] = [
      ["CHAP_N", options.user ?? "alice"],
      ["CHAP_R", encodeBinary(response)],
    ];
    return this.ask([...proof, ...(options.extra ?? [])], true);
  }

  enter() {
    const isid = Buffer.from("800000000001", "hex");
    this.sendLogin([], { currentStage: 1, isid, transit: true, nextStage: 3 });
    return this.answered();
  }
}
