import {
  type ChapAlgorithm,
  type ChapRecord,
  type ClusterState,
  chapAlgorithms,
  type SealedSecret,
  type VolumeRecord,
} from "../brick/cluster-state.ts";
import { canonicalName } from "../brick/unit/iscsi-name.ts";
import type { BrickNumber } from "../brick/units.ts";
import {
  type Asker,
  admission,
  commonLuns,
  commonName,
  discoveryProof,
  initiatorOf,
  redirectTarget,
} from "../control/access.ts";
import { openSecret, type SecretOwner } from "../control/secret-seal.ts";
import type { Authority, ChapAccount, Proof, TargetView } from "../iscsi/authority.ts";
import { targetNameOf, volumeNameOf } from "../iscsi/target-name.ts";

interface AuthorityParts {
  readonly self: BrickNumber;
  state(): ClusterState;
  /** The cluster's secret: it opens the sealed ones. */
  readonly secret: Buffer;
  /** Whether this portal listens on a loopback address. */
  readonly loopback: boolean;
  readonly log: (line: string) => void;
}

/** IANA ppp-numbers, CHAP algorithms. */
const chapNumbers = {
  md5: 5,
  sha1: 6,
  sha256: 7,
  "sha3-256": 8,
} as const satisfies Record<ChapAlgorithm, number>;

const noProof: Proof = { method: "none" };
/** Asked of whoever is not let in: it cannot be told from the question to one who is. */
const vainProof: Proof = { method: "chap", account: null };

/** The cluster state's word on who may do what at this brick's portal. */
export class ClusterAuthority implements Authority {
  readonly #parts: AuthorityParts;
  readonly #listeners = new Set<() => void>();
  #seen: ClusterState | null = null;

  constructor(parts: AuthorityParts) {
    this.#parts = parts;
  }

  /** The cluster state is another; listeners hear of it when it matters to them. */
  onState(state: ClusterState): void {
    const seen = this.#seen;
    this.#seen = state;
    const { self } = this.#parts;
    const same =
      seen !== null &&
      seen.volumes === state.volumes &&
      seen.initiators === state.initiators &&
      seen.discoveryChap === state.discoveryChap &&
      redirectTarget(seen, self) === redirectTarget(state, self);
    if (!same) for (const listener of [...this.#listeners]) listener();
  }

  targets(initiatorName: string): TargetView[] {
    const state = this.#parts.state();
    const asker = this.#asker(initiatorName);
    const views = Object.values(state.volumes)
      .filter((volume) => admission(state, volume, asker) !== "refused")
      .map(volumeView);
    const common = commonView(state, asker);
    if (common.luns.size > 0) views.push(common);
    return views.sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  target(initiatorName: string, targetName: string): TargetView | "absent" | "forbidden" {
    const state = this.#parts.state();
    const asker = this.#asker(initiatorName);
    const common = commonView(state, asker);
    if (targetName === common.name) return common.luns.size > 0 ? common : "forbidden";
    const volume = volumeOf(state, targetName);
    if (volume === null) return "absent";
    return admission(state, volume, asker) === "refused" ? "forbidden" : volumeView(volume);
  }

  proof(initiatorName: string, targetName: string | null): Proof {
    const state = this.#parts.state();
    const asker = this.#asker(initiatorName);
    if (targetName === null) return this.#discoveryProof(state, asker);
    const volumes = volumesBehind(state, asker, targetName);
    const admissions = volumes.map((volume) => admission(state, volume, asker));
    const isUnproven = admissions.includes("unproven") && !admissions.includes("proven");
    if (isUnproven) return noProof;
    // Even the login that will be refused, or finds nothing, has to prove who asks: only at a
    // loopback portal is there no secret in which targets there are.
    const chap = initiatorOf(state, asker)?.chap ?? null;
    if (chap !== null) return this.#account(asker.initiator, chap);
    return volumes.length === 0 && asker.loopback ? noProof : vainProof;
  }

  redirect(): { address: string } | null {
    const address = redirectTarget(this.#parts.state(), this.#parts.self);
    return address === null ? null : { address };
  }

  onChange(listener: () => void): { stop(): void } {
    this.#listeners.add(listener);
    return { stop: () => this.#listeners.delete(listener) };
  }

  #discoveryProof(state: ClusterState, asker: Asker): Proof {
    switch (discoveryProof(state, asker)) {
      case "none":
        return noProof;
      case "discovery":
        return this.#account(null, state.discoveryChap!);
      case "own":
        return this.#account(asker.initiator, initiatorOf(state, asker)!.chap!);
      case "unknown":
        return vainProof;
    }
  }

  #asker(initiatorName: string): Asker {
    // A name that is none is nobody's: it is let in where everyone is.
    const initiator = canonicalName(initiatorName) ?? initiatorName;
    return { initiator, loopback: this.#parts.loopback };
  }

  #account(initiator: string | null, { user, secret, weakest, mutual }: ChapRecord): Proof {
    const own = this.#open({ initiator, prover: "initiator", user }, secret);
    const back =
      mutual === null
        ? null
        : this.#open({ initiator, prover: "target", user: mutual.user }, mutual.secret);
    if (own === null || (mutual !== null && back === null)) return vainProof;
    const account: ChapAccount = {
      user,
      secret: own,
      algorithms: chapAlgorithms
        .slice(chapAlgorithms.indexOf(weakest))
        .map((algorithm) => chapNumbers[algorithm])
        .reverse(),
      mutual: back === null ? null : { user: mutual!.user, secret: back },
    };
    return { method: "chap", account };
  }

  #open(owner: SecretOwner, sealed: SealedSecret): Buffer | null {
    const secret = openSecret(this.#parts.secret, owner, sealed);
    if (secret === null) {
      const whose = owner.initiator ?? "discovery";
      this.#parts.log(`access: the secret of ${whose} was not sealed by this cluster; set it anew`);
    }
    return secret;
  }
}

function volumeView(volume: VolumeRecord): TargetView {
  return { name: targetNameOf(volume.name), luns: new Map([[0, volume.name]]) };
}

function commonView(state: ClusterState, asker: Asker): TargetView {
  const luns = [...commonLuns(state, asker)].map(([lun, { name }]) => [lun, name] as const);
  return { name: targetNameOf(commonName(state.clusterId)), luns: new Map(luns) };
}

function volumeOf(state: ClusterState, targetName: string): VolumeRecord | null {
  const name = volumeNameOf(targetName);
  const volume = name === undefined ? undefined : state.volumes[name];
  return volume?.status === "ready" ? volume : null;
}

/** The volumes of a target, whoever may use them; of the common one, those that are the asker's. */
function volumesBehind(state: ClusterState, asker: Asker, targetName: string): VolumeRecord[] {
  if (targetName === targetNameOf(commonName(state.clusterId))) {
    return [...commonLuns(state, asker).values()];
  }
  const volume = volumeOf(state, targetName);
  return volume === null ? [] : [volume];
}
