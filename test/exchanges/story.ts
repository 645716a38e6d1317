import { type Octets, parseOctets } from "./octets.ts";

/**
 * A story: what one kind of initiator does, told as a transcript of requests and of what must be
 * answered. Format: README.md beside this file. Pure.
 */
export interface Story {
  readonly title: string;
  /** What it can be played against; at least one. */
  readonly over: readonly SceneKind[];
  readonly portals: number;
  readonly volumes: readonly { readonly name: string; readonly size: string }[];
  /** A target of several units, besides the volumes' own: LUN -> volume. Memory only. */
  readonly targets: readonly {
    readonly name: string;
    readonly luns: ReadonlyMap<number, string>;
  }[];
  readonly steps: readonly Step[];
}

export type BrickAction = "kill" | "start" | "drain";
export type SceneKind = "memory" | "cluster";

export type Step = { readonly line: number; readonly text: string } & (
  | {
      /** Opens a connection to a portal and gives it a name. */
      readonly kind: "connect";
      readonly name: string;
      readonly portal: number;
      readonly isid: string;
      readonly lun: number;
      /** Whether it sends immediate data when it may. */
      readonly immediate: boolean;
    }
  | { readonly kind: "as"; readonly name: string }
  | {
      readonly kind: "login";
      readonly currentStage: number;
      /** null: stays in the stage (T is 0). */
      readonly nextStage: number | null;
      readonly offers: readonly Pair[];
      readonly answers: readonly PairCheck[];
      readonly status: number;
      /** T of the response. */
      readonly transits: boolean;
    }
  | {
      readonly kind: "text";
      readonly offers: readonly Pair[];
      readonly answers: readonly PairCheck[];
    }
  | {
      readonly kind: "scsi";
      readonly cdb: Octets;
      readonly readBytes: number;
      readonly out: Octets | null;
      readonly lun: number | null;
      readonly outcome: Outcome;
      /** The outcome may come after any number of answers that tell the initiator to try again. */
      readonly inTheEnd: boolean;
      readonly checks: readonly DataCheck[];
    }
  | { readonly kind: "nop"; readonly data: Octets }
  | { readonly kind: "task"; readonly action: number; readonly response: number }
  | { readonly kind: "logout"; readonly response: number }
  | { readonly kind: "async"; readonly event: number }
  | { readonly kind: "closed" }
  /** The connection is cut without a word. */
  | { readonly kind: "sever" }
  | { readonly kind: "fault"; readonly volume: string; readonly code: string }
  | { readonly kind: "brick"; readonly number: number; readonly action: BrickAction }
);

export type Pair = readonly [key: string, value: string];

/** `value` null: the key must not be answered at all. */
export interface PairCheck {
  readonly key: string;
  readonly value: string | null;
}

export type Outcome =
  | { readonly kind: "status"; readonly status: number }
  /** "key/asc/ascq" */
  | { readonly kind: "sense"; readonly sense: string };

export type DataCheck =
  | { readonly kind: "bytes"; readonly at: number; readonly octets: Octets }
  | {
      readonly kind: "number";
      readonly at: number;
      readonly bits: number;
      readonly relation: Relation;
      readonly value: bigint;
    }
  | { readonly kind: "mask"; readonly at: number; readonly mask: number; readonly value: number }
  | { readonly kind: "length"; readonly relation: Relation; readonly value: number }
  | { readonly kind: "contains" | "lacks"; readonly octets: Octets }
  | { readonly kind: "save"; readonly name: string; readonly at: number; readonly length: number }
  /** Of VPD page 83: the first designator of the type and association. */
  | {
      readonly kind: "designator";
      readonly type: number;
      readonly association: number;
      readonly name: string;
    }
  | { readonly kind: "residual"; readonly type: "under" | "over" | "none"; readonly bytes: number };

const relations = ["=", "!=", ">=", "<="] as const;
export type Relation = (typeof relations)[number];

const stages: Readonly<Record<string, number>> = { security: 0, operational: 1, full: 3 };

/** SAM-5 table 46. */
const statuses: Readonly<Record<string, number>> = {
  good: 0x00,
  "condition-met": 0x04,
  busy: 0x08,
  conflict: 0x18,
  "task-set-full": 0x28,
  aborted: 0x40,
};

/** RFC 7143 §11.5.1. */
const taskFunctions: Readonly<Record<string, number>> = {
  "abort-task-set": 2,
  "clear-task-set": 4,
  "lun-reset": 5,
  "target-warm-reset": 6,
};

interface Line {
  readonly number: number;
  readonly text: string;
}

/** Throws an Error that names the line it cannot read. */
export function parseStory(source: string): Story {
  const story = { title: "", over: [] as SceneKind[], portals: 1 };
  const volumes: { name: string; size: string }[] = [];
  const targets: { name: string; luns: Map<number, string> }[] = [];
  const steps: Step[] = [];
  for (const { head, body } of blocks(source)) {
    try {
      const [word = "", ...rest] = head.text.split(/\s+/);
      if (word === "title") story.title = rest.join(" ");
      else if (word === "over") story.over = rest.map(sceneKind);
      else if (word === "portals") story.portals = Number(rest[0]);
      else if (word === "volume") volumes.push({ name: rest[0]!, size: rest[1]! });
      else if (word === "target") targets.push(parseTarget(rest));
      else steps.push(parseStep(head, body));
    } catch (error) {
      throw new Error(`line ${head.number}: ${head.text}: ${(error as Error).message}`);
    }
  }
  if (story.title === "" || story.over.length === 0) throw new Error("no title or no scene");
  return { ...story, volumes, targets, steps };
}

/** target NAME LUN=VOLUME... */
function parseTarget([name = "", ...units]: string[]): { name: string; luns: Map<number, string> } {
  const luns = units.map((unit): [number, string] => {
    const [lun, volume] = unit.split("=");
    return [Number(lun), volume!];
  });
  return { name, luns: new Map(luns) };
}

function sceneKind(word: string): SceneKind {
  if (word !== "memory" && word !== "cluster") throw new Error(`no scene ${word}`);
  return word;
}

/** Lines that begin at the margin, each with the indented lines under it. */
function blocks(source: string): { head: Line; body: Line[] }[] {
  const found: { head: Line; body: Line[] }[] = [];
  source.split("\n").forEach((raw, index) => {
    const text = raw.replace(/(?:^|\s)#.*$/, "").trimEnd();
    if (text === "") return;
    const line = { number: index + 1, text: text.trim() };
    if (/^\s/.test(text)) {
      const last = found.at(-1);
      if (last === undefined) throw new Error(`line ${line.number} belongs to nothing`);
      last.body.push(line);
    } else {
      found.push({ head: line, body: [] });
    }
  });
  return found;
}

type StepParser = (
  rest: string,
  body: readonly string[],
) => DistributiveOmit<Step, "line" | "text">;
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

const stepParsers: Readonly<Record<string, StepParser>> = {
  connect: parseConnect,
  as: (rest) => ({ kind: "as", name: rest }),
  login: parseLogin,
  text: (_rest, body) => ({ kind: "text", ...pairsOf(body).pairs }),
  scsi: parseScsi,
  nop: (rest) => ({ kind: "nop", data: parseOctets(rest) }),
  task: (rest, body) => {
    const action = taskFunctions[rest];
    if (action === undefined) throw new Error(`no task management function ${rest}`);
    return { kind: "task", action, response: responseOf(body) };
  },
  logout: (_rest, body) => ({ kind: "logout", response: responseOf(body) }),
  async: (rest) => ({ kind: "async", event: Number(rest) }),
  closed: () => ({ kind: "closed" }),
  sever: () => ({ kind: "sever" }),
  fault: (rest) => {
    const [volume = "", code = ""] = rest.split(/\s+/);
    return { kind: "fault", volume, code };
  },
  brick: (rest) => {
    const match = /^(\d+) (kill|start|drain)$/.exec(rest);
    if (match === null) throw new Error("brick NUMBER kill|start|drain");
    return { kind: "brick", number: Number(match[1]), action: match[2] as BrickAction };
  },
};

function parseStep(head: Line, body: readonly Line[]): Step {
  const word = head.text.split(/\s+/, 1)[0]!;
  const parser = stepParsers[word];
  if (parser === undefined) throw new Error(`no directive ${word}`);
  const rest = head.text.slice(word.length).trim();
  const step = parser(
    rest,
    body.map((line) => line.text),
  );
  return { line: head.number, text: head.text, ...step };
}

/** connect NAME [portal N] [isid HEX] [lun N] [no-immediate-data] */
function parseConnect(rest: string): DistributiveOmit<Step, "line" | "text"> {
  const [name = "", ...words] = rest.split(/\s+/);
  const after = (word: string, otherwise: string) => {
    const at = words.indexOf(word);
    return at < 0 ? otherwise : words[at + 1]!;
  };
  return {
    kind: "connect",
    name,
    portal: Number(after("portal", "1")),
    isid: after("isid", "800000000001"),
    lun: Number(after("lun", "0")),
    immediate: !words.includes("no-immediate-data"),
  };
}

/** login STAGE -> STAGE, or login STAGE; then keys, `status HHHH`, `stays` when T is refused. */
function parseLogin(
  rest: string,
  body: readonly string[],
): DistributiveOmit<Step, "line" | "text"> {
  const match = /^(\w+)(?: -> (\w+))?$/.exec(rest);
  const currentStage = stages[match?.[1] ?? ""];
  const next = match?.[2];
  if (currentStage === undefined || (next !== undefined && stages[next] === undefined)) {
    throw new Error("login STAGE [-> STAGE]");
  }
  const { pairs, others } = pairsOf(body);
  let status = 0;
  let transits = next !== undefined;
  for (const line of others) {
    const code = /^status ([0-9a-f]{4})$/.exec(line);
    if (code !== null) status = Number.parseInt(code[1]!, 16);
    else if (line === "stays") transits = false;
    else throw new Error(line);
  }
  const nextStage = next === undefined ? null : stages[next]!;
  return { kind: "login", currentStage, nextStage, ...pairs, status, transits };
}

/** `> Key=Value` is offered, `< Key=Value` must be answered, `< !Key` must not be. */
function pairsOf(body: readonly string[]): {
  pairs: { offers: Pair[]; answers: PairCheck[] };
  others: string[];
} {
  const offers: Pair[] = [];
  const answers: PairCheck[] = [];
  const others: string[] = [];
  for (const line of body) {
    const pair = /^([<>]) (!?)([^=]+)(?:=(.*))?$/.exec(line);
    if (pair === null) others.push(line);
    else if (pair[1] === ">") offers.push([pair[3]!, pair[4] ?? ""]);
    else answers.push({ key: pair[3]!, value: pair[2] === "!" ? null : (pair[4] ?? "") });
  }
  return { pairs: { offers, answers }, others };
}

/** scsi LABEL: CDB [in BYTES] [lun N], then `> octets`, one outcome, and checks of the data. */
function parseScsi(rest: string, body: readonly string[]): DistributiveOmit<Step, "line" | "text"> {
  const match = /^[^:]+: (.*?)(?: in (\d+))?(?: lun (\d+))?$/.exec(rest);
  if (match === null) throw new Error("scsi LABEL: CDB [in BYTES] [lun N]");
  const sent = body.filter((line) => line.startsWith("> ")).map((line) => line.slice(2));
  const ending = / in the end$/;
  const isOutcome = (line: string) => outcomeOf(line.replace(ending, "")) !== null;
  const outcomes = body.filter(isOutcome);
  const rests = body.filter((line) => !line.startsWith("> ") && !isOutcome(line));
  if (outcomes.length !== 1) throw new Error("a command has one outcome");
  return {
    kind: "scsi",
    cdb: parseOctets(match[1]!),
    readBytes: Number(match[2] ?? 0),
    out: sent.length === 0 ? null : parseOctets(sent.join(" ")),
    lun: match[3] === undefined ? null : Number(match[3]),
    outcome: outcomeOf(outcomes[0]!.replace(ending, ""))!,
    inTheEnd: ending.test(outcomes[0]!),
    checks: rests.map(parseCheck),
  };
}

function outcomeOf(line: string): Outcome | null {
  const sense = /^sense ([0-9a-f]\/[0-9a-f]{2}\/[0-9a-f]{2})$/.exec(line);
  if (sense !== null) return { kind: "sense", sense: sense[1]! };
  const status = statuses[line];
  return status === undefined ? null : { kind: "status", status };
}

function parseCheck(line: string): DataCheck {
  const number = /^\[(\d+)\]u(8|16|24|32|64) (\S+) (0x[0-9a-f]+|\d+)$/.exec(line);
  if (number !== null) {
    const [, at, bits, relation, value] = number;
    return {
      kind: "number",
      at: Number(at),
      bits: Number(bits),
      relation: relationOf(relation!),
      value: BigInt(value!),
    };
  }
  const mask = /^\[(\d+)\]&([0-9a-f]{2}) ([0-9a-f]{2})$/.exec(line);
  if (mask !== null) {
    const [at, bits, value] = [Number(mask[1]), `0x${mask[2]}`, `0x${mask[3]}`];
    return { kind: "mask", at, mask: Number(bits), value: Number(value) };
  }
  const bytes = /^\[(\d+)\] (.*)$/.exec(line);
  if (bytes !== null) {
    return { kind: "bytes", at: Number(bytes[1]), octets: parseOctets(bytes[2]!) };
  }
  const length = /^length (\S+) (\d+)$/.exec(line);
  if (length !== null) {
    return { kind: "length", relation: relationOf(length[1]!), value: Number(length[2]) };
  }
  const within = /^(contains|lacks) (.*)$/.exec(line);
  if (within !== null) {
    return { kind: within[1] as "contains", octets: parseOctets(within[2]!) };
  }
  const save = /^save (\w+) \[(\d+)\]\+(\d+)$/.exec(line);
  if (save !== null) {
    return { kind: "save", name: save[1]!, at: Number(save[2]), length: Number(save[3]) };
  }
  const designator = /^designator (\d+) association (\d+) as (\w+)$/.exec(line);
  if (designator !== null) {
    const [type, association] = [Number(designator[1]), Number(designator[2])];
    return { kind: "designator", type, association, name: designator[3]! };
  }
  const residual = /^residual (none|under|over)(?: (\d+))?$/.exec(line);
  if (residual !== null) {
    return { kind: "residual", type: residual[1] as "none", bytes: Number(residual[2] ?? 0) };
  }
  throw new Error(`cannot read: ${line}`);
}

function relationOf(word: string): Relation {
  const found = relations.find((one) => one === word);
  if (found === undefined) throw new Error(`no relation ${word}`);
  return found;
}

function responseOf(body: readonly string[]): number {
  const match = /^response (\d+)$/.exec(body[0] ?? "");
  if (match === null) throw new Error("a response is expected");
  return Number(match[1]);
}
