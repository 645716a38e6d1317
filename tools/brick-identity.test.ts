import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { AdminBackend } from "../control/api.ts";
import { joinTokenText, tokenHash } from "../control/api-auth.ts";
import {
  readSecret,
  SecretFileError,
  secretFileName,
  writeSecret,
} from "../control/api-secret-io.ts";
import { startApiServer } from "../control/api-server-io.ts";
import {
  type BrickIdentity,
  establishIdentity,
  identityFileName,
  readIdentity,
  writeIdentity,
} from "./brick-identity-io.ts";
import { BrickStartError } from "./brick-options.ts";
import { joiningFileName } from "./joining-io.ts";

const identity: BrickIdentity = {
  version: 1,
  clusterId: "0123456789abcdef".repeat(2),
  number: 3,
  uuid: "ab".repeat(16),
  origin: "join",
  begun: true,
  listen: "127.0.0.1:3270",
  portal: "127.0.0.1:3260",
  api: "127.0.0.1:3280",
  domain: "rack 7",
  capacityBytes: 1_234_567_890,
  peers: [{ number: 1, peerAddress: "127.0.0.1:4270", apiAddress: "127.0.0.1:4280" }],
};

function inFolder(action: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "end-identity-"));
  try {
    action(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("an identity with a flipped bit, or cut short, is refused, or the same", () => {
  inFolder((folder) => {
    writeIdentity(folder, identity);
    assert.deepEqual(readIdentity(folder), identity);
    const path = join(folder, identityFileName);
    const bytes = readFileSync(path);
    let refused = 0;
    const look = (damaged: Buffer) => {
      writeFileSync(path, damaged);
      try {
        assert.deepEqual(readIdentity(folder), identity);
      } catch (error) {
        if (!(error instanceof BrickStartError)) throw error;
        refused += 1;
      }
    };
    for (let bit = 0; bit < 8 * bytes.length; bit += 11) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      look(damaged);
    }
    assert.ok(refused > bytes.length / 3, `only ${refused} flips were refused`);
    for (let length = 0; length < bytes.length - 1; length += 7) look(bytes.subarray(0, length));
    look(Buffer.alloc(bytes.length));
  });
});

test("an identity from before there were checksums is read", () => {
  inFolder((folder) => {
    writeFileSync(join(folder, identityFileName), JSON.stringify(identity));
    assert.deepEqual(readIdentity(folder), identity);
  });
});

type Join = AdminBackend["join"];

const secret = Buffer.alloc(32, 0x5a);

interface Joining {
  readonly folder: string;
  /** By which uuids the cluster was asked. */
  readonly asked: readonly string[];
  joinIt(): ReturnType<typeof establishIdentity>;
}

/** A folder, and a cluster that answers to joining as it is told, by how often it was asked. */
async function joining(
  answer: (times: number) => Awaited<ReturnType<Join>>,
  action: (joining: Joining) => Promise<void>,
): Promise<void> {
  const asked: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), "end-identity-"));
  const [tokenId, tokenSecret] = [Buffer.alloc(8, 1), Buffer.alloc(32, 2)];
  const backend: Pick<AdminBackend, "join" | "tokenHash"> = {
    tokenHash: async () => ({ ok: true, value: tokenHash(tokenSecret) }),
    join: async (_, { uuid }) => answer(asked.push(uuid)),
  };
  const server = await startApiServer({
    host: "127.0.0.1",
    port: 0,
    backend: backend as AdminBackend,
    secret,
    wallMs: () => Date.now(),
    metrics: async () => "",
    health: () => ({ ready: true, facts: {} }),
    log: () => {},
  });
  process.env.XDG_STATE_HOME = folder;
  try {
    const tokenFile = join(folder, "token");
    writeFileSync(tokenFile, joinTokenText(tokenId, tokenSecret), { mode: 0o600 });
    const address = `127.0.0.1:${server.port}`;
    const joinIt = () =>
      establishIdentity({
        dataFolder: folder,
        init: false,
        join: { address, tokenFile, spare: false },
        listen: "127.0.0.1:3270",
        portal: "127.0.0.1:3260",
        api: "127.0.0.1:3280",
        domain: null,
        capacityBytes: 2 ** 30,
        memoryBytes: null,
        masterKeyFile: null,
        log: () => {},
      });
    await action({ folder, asked, joinIt });
  } finally {
    await server.close();
    rmSync(folder, { recursive: true });
  }
}

const taken: Awaited<ReturnType<Join>> = {
  ok: true,
  value: { clusterId: "ab".repeat(16), number: 4, peers: [] },
};
const isLeft = (folder: string) => existsSync(join(folder, joiningFileName));

test("who joins takes the cluster's secret, whatever an earlier beginning left in the folder", async () => {
  await joining(
    () => taken,
    async ({ folder, joinIt }) => {
      writeFileSync(join(folder, secretFileName), "half of it", { mode: 0o600 });
      const made = await joinIt();
      assert.deepEqual(made.secret, secret);
      assert.equal(made.identity.number, 4);
      assert.deepEqual(readSecret(folder), secret);
      assert.equal(isLeft(folder), false);
    },
  );
});

test("a brick that was kept from the answer asks again as the same brick", async () => {
  const away = { code: "unavailable", message: "no leader" } as const;
  const answer = (times: number) => (times === 1 ? ({ ok: false, fault: away } as const) : taken);
  await joining(answer, async ({ folder, asked, joinIt }) => {
    await assert.rejects(joinIt(), /no leader/);
    assert.equal(isLeft(folder), true);
    const { identity } = await joinIt();
    assert.deepEqual(asked, [identity.uuid, identity.uuid]);
    assert.equal(isLeft(folder), false);
    assert.deepEqual(readIdentity(folder), identity);
  });
});

test("what cannot be the brick that it was is another one, and asks but once more", async () => {
  const answer = (times: number) => {
    const code = times === 1 ? "unavailable" : "conflict";
    return { ok: false, fault: { code, message: "it is brick 4 already" } } as const;
  };
  await joining(answer, async ({ folder, asked, joinIt }) => {
    await assert.rejects(joinIt(), /brick 4 already/);
    await assert.rejects(joinIt(), /brick 4 already/);
    assert.equal(asked.length, 3);
    assert.equal(asked[1], asked[0]);
    assert.notEqual(asked[2], asked[0]);
    assert.equal(isLeft(folder), false);
  });
});

test("a uuid that was never durable as a whole is another", async () => {
  await joining(
    () => taken,
    async ({ folder, asked, joinIt }) => {
      writeFileSync(join(folder, joiningFileName), "ab".repeat(15));
      const { identity } = await joinIt();
      assert.deepEqual(asked, [identity.uuid]);
    },
  );
});

test("a secret that is not one is refused", () => {
  inFolder((folder) => {
    writeSecret(folder, secret);
    assert.deepEqual(readSecret(folder), secret);
    const path = join(folder, secretFileName);
    const bytes = readFileSync(path);
    for (const damaged of [Buffer.alloc(bytes.length), bytes.subarray(0, 40), Buffer.alloc(0)]) {
      writeFileSync(path, damaged);
      assert.throws(() => readSecret(folder), SecretFileError);
    }
  });
});
