/**
 * Who may do what at a portal. The portal asks at each login and again whenever something has
 * changed; it keeps nothing. The cluster's own is in tools/, made of the cluster state and the
 * cluster secret.
 */
export interface Authority {
  /** The targets that an initiator may log in to, sorted by name, each with its LUNs. */
  targets(initiatorName: string): TargetView[];
  /** One of them; "forbidden": it exists, but is not for this initiator. */
  target(initiatorName: string, targetName: string): TargetView | "absent" | "forbidden";
  /** What a login must prove. `targetName` is null for a discovery session. */
  proof(initiatorName: string, targetName: string | null): Proof;
  /** Another portal that serves instead, while this one drains; null when this one serves. */
  redirect(): { address: string } | null;
  /** Calls back after each change of any of these. */
  onChange(listener: () => void): { stop(): void };
}

/** A target as one initiator sees it: LUN -> volume name. LUN 0 may be missing. */
export interface TargetView {
  readonly name: string;
  readonly luns: ReadonlyMap<number, string>;
}

/**
 * "none": no proof is asked. An unknown initiator that must prove itself gets `account: null`: the
 * exchange runs to its end, as with any other, and fails.
 */
export type Proof =
  | { readonly method: "none" }
  | { readonly method: "chap"; readonly account: ChapAccount | null };

export interface ChapAccount {
  /** CHAP_N, compared byte for byte. */
  readonly user: string;
  readonly secret: Buffer;
  /** The CHAP_A numbers that are accepted, strongest first (IANA ppp-numbers: 5, 6, 7, 8). */
  readonly algorithms: readonly number[];
  readonly mutual: { readonly user: string; readonly secret: Buffer } | null;
}
