import type { ClusterState } from "../brick/cluster-state.ts";
import { keyDomainNext } from "../brick/crypt/key-domains.ts";
import { keyDomainMax } from "../brick/crypt/key-file.ts";
import { isRekeyWanted } from "../brick/unit/sanitize.ts";
import { changeUnit } from "../brick/unit/unit-changes.ts";
import { type Applied, done, refuse } from "./command-result.ts";
import type { CommandOf } from "./commands.ts";
import { pendingKeyLifeMs, pendingKeysMax, pendingUnknown, takePending } from "./pending-keys.ts";
import { volumeByUuid, withVolume } from "./volume-commands.ts";

/** Numbers and checks of keys; a key itself never comes here (brick/crypt/key-domains.ts). */

export function reserveKeyDomain(
  state: ClusterState,
  command: CommandOf<"reserveKeyDomain">,
): Applied {
  const { uuid, check } = command;
  const domain = keyDomainNext(state);
  if (domain > keyDomainMax) {
    const message = `cannot make another key: this cluster has given out all ${keyDomainMax} numbers for them`;
    return refuse(state, "limit", message);
  }
  const pending = state.pendingKeys ?? {};
  if (Object.keys(pending).length >= pendingKeysMax) {
    const message = `cannot make another key now: ${pendingKeysMax} are being made; try again in a minute`;
    return refuse(state, "limit", message);
  }
  const endsMs = state.clusterTimeMs + pendingKeyLifeMs;
  const pendingKeys = { ...pending, [domain]: { uuid, check, endsMs } };
  return done({ ...state, pendingKeys, keyDomainNext: domain + 1 }, domain);
}

/** In place of the key that a cryptographic erase is to have destroyed. */
export function rekeyVolume(state: ClusterState, command: CommandOf<"rekeyVolume">): Applied {
  const { uuid, keyDomain } = command;
  const volume = volumeByUuid(state, uuid);
  const unit = state.units?.[uuid];
  const old = volume?.keyDomain;
  if (volume?.status !== "ready" || old === undefined) {
    const message = `cannot change the key of volume ${uuid}: there is none, or it has no key`;
    return refuse(state, "unknown", message);
  }
  if (unit === undefined || !isRekeyWanted(unit.sanitize)) {
    const message = `cannot change the key of volume ${volume.name}: it is not being erased`;
    return refuse(state, "no_change", message);
  }
  const taken = takePending(state, uuid, keyDomain);
  if (taken === null) return pendingUnknown(state, volume.name, keyDomain);
  const { record } = changeUnit(unit, { type: "rekeyed", retiredKey: old }, []);
  const units = { ...state.units, [uuid]: record };
  const { check } = taken.pending;
  return done(withVolume({ ...taken.state, units }, { ...volume, keyDomain, keyCheck: check }));
}
