import type { VolumeDirectory } from "../brick/volume/volume.ts";
import type { Authority, Proof, TargetView } from "./authority.ts";
import { openAuthority } from "./open-authority.test-double.ts";

/**
 * An authority that tests can change: everybody may use every volume of a directory until a test
 * says something else. `changed` tells the portal.
 */
export class TestAuthority implements Authority {
  readonly #open: Authority;
  readonly #listeners = new Set<() => void>();
  /** Targets besides the volumes' own, by name. */
  readonly extraTargets = new Map<string, TargetView>();
  /** Target names that are not for anyone. */
  readonly forbidden = new Set<string>();
  /** What an initiator must prove, by name; others prove nothing. */
  readonly proofs = new Map<string, Proof>();
  /** What is asked of everybody else. */
  proofOfOthers: Proof = { method: "none" };
  redirectTo: { address: string } | null = null;

  constructor(directory: VolumeDirectory) {
    this.#open = openAuthority(directory);
  }

  targets(initiatorName: string): TargetView[] {
    const all = [...this.#open.targets(initiatorName), ...this.extraTargets.values()];
    return all.filter(({ name }) => !this.forbidden.has(name));
  }

  target(initiatorName: string, targetName: string): TargetView | "absent" | "forbidden" {
    if (this.forbidden.has(targetName)) return "forbidden";
    return this.extraTargets.get(targetName) ?? this.#open.target(initiatorName, targetName);
  }

  proof(initiatorName: string, _targetName: string | null): Proof {
    return this.proofs.get(initiatorName) ?? this.proofOfOthers;
  }

  redirect(): { address: string } | null {
    return this.redirectTo;
  }

  onChange(listener: () => void): { stop(): void } {
    this.#listeners.add(listener);
    return { stop: () => this.#listeners.delete(listener) };
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
